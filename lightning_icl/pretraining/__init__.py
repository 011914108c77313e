"""Language-model training from scratch, which made the built-in model."""
