"""The comparison, end to end: settings, runs, and the results made of them."""
