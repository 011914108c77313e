"""From rows to token batches: encoding, demonstrations, queries, and the LightningDataModule over them."""
