"""Demonstrations replaced by an update of each head: how much of in-context learning is left on every rung."""
