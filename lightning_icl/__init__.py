"""lightning-icl: measure how a language model learns from the examples in its prompt.

Names are imported when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from lightning_icl._version import __version__

if TYPE_CHECKING:
    from lightning_icl.records import Condition, Demonstrations, KVOverlay, Observation
    from lightning_icl.tasks.task import Task

_HOME = {
    "Condition": "lightning_icl.records",
    "Demonstrations": "lightning_icl.records",
    "KVOverlay": "lightning_icl.records",
    "Observation": "lightning_icl.records",
    "Task": "lightning_icl.tasks.task",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'lightning_icl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
