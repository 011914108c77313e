"""Language-model training, from scratch or from existing weights, which made the built-in model."""
