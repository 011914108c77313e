"""The version, alone in a file so that building the package needs no import of it."""

__version__ = "0.1.0"
