"""Whose attention to the demonstrations a replacement concerns. Imports nothing heavy: `--help` reads this file."""

from typing import Literal

Scope = Literal["probe", "query", "alone"]
"""The probe token's, while the other own tokens attend to the demonstrations as ever; that of all own tokens; or the
probe token's, while the other own tokens do not see the demonstrations at all."""
