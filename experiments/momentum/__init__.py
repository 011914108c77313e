"""Momentum attention against plain attention: language modelling and in-context learning (Dai et al., section 5)."""
