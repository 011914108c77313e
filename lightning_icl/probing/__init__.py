"""The probe and the restricted fine-tuning."""
