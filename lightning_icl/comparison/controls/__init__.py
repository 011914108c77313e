"""Controls: comparisons beside the paper's own that could refute it, each one more contrast of the same pass."""
