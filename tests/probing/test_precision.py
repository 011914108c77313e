"""Every precision of the command line runs, and differs from float32 only as its rounding does."""

from pathlib import Path

import pytest
import torch
from exactness import deviations, make_trainer
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.data.queries import collate
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.observation import View
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import Condition


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
    assert abs(probe.comparison.sim_aou.raw.value - exact.comparison.sim_aou.raw.value) < 1e-4


@pytest.mark.parametrize("rate", [1e-4, 1e-5])
@pytest.mark.parametrize("variant", ["gpt2", "gpt_neox", "bloom"])
def test_double_precision_keeps_the_digits_of_small_rates(variant: str, rate: float, tmp_path: Path) -> None:
    """Updates of 1e-6 of an output and less: float32 anywhere on the way would leave two digits of them."""
    found = deviations(variant, "prompt", "single", tmp_path, rate=rate, dtype=torch.float64)
    assert max(found.values()) < 1e-8, found


@pytest.mark.parametrize("variant", ["gpt2", "llama", "qwen3", "bloom", "gptj"])
def test_nothing_is_narrowed_under_double_precision(variant: str, tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    probe = ICLProbe(tiny_model(variant).double(), data.demonstrations)
    make_trainer(KVFinetuning(0.01), precision="64-true").fit(probe, datamodule=data)
    assert probe.finetuned is not None
    assert all(tensor.dtype == torch.float64 for tensor in probe.finetuned.overlay.tensors.values())
    batch = collate(data.queries)
    with probe.capture as capture:
        seen = View.prepare(capture, Condition.in_context(data.demonstrations)).observe(capture, batch)
    for name in ("answer_scores", "attention_output", "own_scores", "query", "prefix_scores"):
        assert getattr(seen, name).dtype == torch.float64, name
