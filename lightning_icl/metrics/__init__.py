"""How alike in-context learning and fine-tuning are: functions below, torchmetrics classes above."""
