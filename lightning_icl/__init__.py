"""lightning-icl: measure how a language model learns from the examples in its prompt.

What may be imported is listed once, in the stub beside this file, for people and type checkers. Names are looked up
there and imported when first used, so that importing the package costs nothing and changes nothing elsewhere.
"""

import ast
from importlib import import_module
from pathlib import Path

from lightning_icl._version import __version__


def _listed() -> dict[str, str]:
    """The module each public name comes from."""
    # Parsed and not imported: the stub's imports are what must not happen yet.
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = (node for node in stub.body if isinstance(node, ast.ImportFrom))
    return {alias.name: node.module or "" for node in imports for alias in node.names}


_HOME = _listed()

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'lightning_icl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
