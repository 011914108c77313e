"""Speed and exactness, measured side by side and never asserted in a test."""
