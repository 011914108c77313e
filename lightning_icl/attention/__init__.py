"""Pure tensor mathematics of attention, knowing no model."""
