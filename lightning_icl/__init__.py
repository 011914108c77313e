"""lightning-icl: measure how a language model learns from the examples in its prompt.

Names are imported when first used, so that importing the package costs nothing. The import also makes transformers know
momentum attention, once transformers is imported.
"""

from importlib import import_module

from lightning_icl._version import __version__
from lightning_icl.models.momentum.registration import announce_momentum

_HOME = {
    "Condition": "lightning_icl.records",
    "Demonstrations": "lightning_icl.records",
    "ICLDataModule": "lightning_icl.data.module",
    "ICLProbe": "lightning_icl.probing.probe",
    "KVFinetuning": "lightning_icl.probing.finetuning",
    "KVOverlay": "lightning_icl.records",
    "Kendall": "lightning_icl.metrics",
    "MomentumAttention": "lightning_icl.attention.momentum",
    "Observation": "lightning_icl.records",
    "Rec2FTP": "lightning_icl.metrics",
    "SimAM": "lightning_icl.metrics",
    "SimAOU": "lightning_icl.metrics",
    "Task": "lightning_icl.tasks.task",
    "find_model": "lightning_icl.models.finding",
    "from_momentum": "lightning_icl.models.momentum.conversion",
    "load_model": "lightning_icl.models.loading",
    "load_tokenizer": "lightning_icl.models.loading",
    "momentum_attention": "lightning_icl.attention.momentum",
    "resolve_tasks": "lightning_icl.tasks.catalogue",
    "to_momentum": "lightning_icl.models.momentum.conversion",
    "value_ema": "lightning_icl.attention.ema",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'lightning_icl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__


announce_momentum()
