"""How alike in-context learning and fine-tuning are: one class for each measure, over pure functions beside it."""

from lightning_icl.metrics.attention import SimAM, SimAMResult
from lightning_icl.metrics.kendall import Kendall, KendallResult
from lightning_icl.metrics.prediction import Rec2FTP, Rec2FTPResult
from lightning_icl.metrics.representation import SimAOU, SimAOUResult

__all__ = [
    "Kendall",
    "KendallResult",
    "Rec2FTP",
    "Rec2FTPResult",
    "SimAM",
    "SimAMResult",
    "SimAOU",
    "SimAOUResult",
]
