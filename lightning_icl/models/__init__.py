"""The model under study: loading, capture, and the key/value parameters."""
