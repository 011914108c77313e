"""How outputs reach the disk: whole or not at all, and never over what this program did not write."""
