"""Shapes are checked while testing: jaxtyping annotations of the package run under beartype."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("COLUMNS", "132")

from jaxtyping import install_import_hook

# Before anything of the package is imported.
_SHAPED = [
    "attention",
    "metrics",
    "records",
    "dualform.outer_products",
    "dualform.matrix_similarity",
    "dualform.implicit_patch",
]
install_import_hook([f"lightning_icl.{name}" for name in _SHAPED], "beartype.beartype")

import logging
from pathlib import Path

import pytest
import torch

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_num_threads(1)  # tests run side by side

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    """The real data sets, where they lie beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return SHARED_DATA
