"""Every precision of the command line runs, and differs from float32 only as its rounding does."""

from pathlib import Path

import pytest
import torch
from exactness import make_trainer
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe


def measured(variant: str, precision: str, folder: Path) -> tuple[torch.Tensor, ICLProbe]:
    data = tiny_data(folder, "multi")
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    probe = ICLProbe(tiny_model(variant).to(dtype), data.demonstrations)
    trainer = make_trainer(KVFinetuning(0.01), precision=precision)
    trainer.fit(probe, datamodule=data)
    trainer.validate(probe, datamodule=data, verbose=False)
    rows = [[item.scores[name] for name in ("zsl", "icl", "ft")] for item in probe.predictions]
    return torch.tensor(rows, dtype=torch.float64), probe


@pytest.mark.parametrize("variant", ["gpt2", "llama", "qwen3", "gemma2", "bloom", "xglm", "llama-momentum"])
@pytest.mark.parametrize(("precision", "scores", "similarity"), [("bf16-true", 0.2, 0.1), ("bf16-mixed", 0.2, 0.1)])
def test_half_precision_stays_near_float32(
    variant: str, precision: str, scores: float, similarity: float, tmp_path: Path
) -> None:
    full, exact = measured(variant, "32-true", tmp_path)
    half, probe = measured(variant, precision, tmp_path)
    assert (half - full).abs().max() < scores
    assert exact.comparison is not None
    assert probe.comparison is not None
    assert abs(probe.comparison.sim_aou.value - exact.comparison.sim_aou.value) < similarity
    assert abs(probe.comparison.sim_am.value - exact.comparison.sim_am.value) < similarity
    assert abs(probe.comparison.kendall.value - exact.comparison.kendall.value) < similarity


@pytest.mark.parametrize("variant", ["gpt2", "llama", "falcon-alibi"])
def test_double_precision_agrees_with_float32(variant: str, tmp_path: Path) -> None:
    full, exact = measured(variant, "32-true", tmp_path)
    double, probe = measured(variant, "64-true", tmp_path)
    assert (double - full).abs().max() < 1e-4
    assert exact.comparison is not None
    assert probe.comparison is not None
    assert abs(probe.comparison.sim_aou.raw - exact.comparison.sim_aou.raw) < 1e-4
