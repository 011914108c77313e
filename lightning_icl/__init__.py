"""lightning-icl: measure how a language model learns from the examples in its prompt.

Names are imported when first used, so that importing the package costs nothing.
"""

from importlib import import_module

from lightning_icl._version import __version__

_HOME = {
    "Condition": "lightning_icl.records",
    "Demonstrations": "lightning_icl.records",
    "ICLDataModule": "lightning_icl.data.module",
    "ICLProbe": "lightning_icl.probing.probe",
    "KVFinetuning": "lightning_icl.probing.finetuning",
    "KVOverlay": "lightning_icl.records",
    "Kendall": "lightning_icl.metrics",
    "Observation": "lightning_icl.records",
    "Rec2FTP": "lightning_icl.metrics",
    "SimAM": "lightning_icl.metrics",
    "SimAOU": "lightning_icl.metrics",
    "Task": "lightning_icl.tasks.task",
    "find_model": "lightning_icl.models.loading",
    "load_model": "lightning_icl.models.loading",
    "load_tokenizer": "lightning_icl.models.loading",
    "resolve_tasks": "lightning_icl.tasks.catalogue",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'lightning_icl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
