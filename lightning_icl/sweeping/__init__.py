"""Many comparisons in one plan: models, tasks, seeds, shots and learning rates, measured once and resumable."""
