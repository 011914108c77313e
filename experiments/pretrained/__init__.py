"""The comparison on pretrained models and real text."""
