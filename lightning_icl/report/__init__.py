"""Tables and plots, made from saved results alone."""
