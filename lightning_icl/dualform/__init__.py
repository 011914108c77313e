"""The dual form made visible: demonstrations and fine-tuning as updates of the same matrices, head by head."""
