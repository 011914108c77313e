"""A GPU gives the numbers of the processor: fine-tunings, groups of them, every metric and every answer's score."""

from pathlib import Path

import pytest
import torch
from exactness import RATE, make_trainer
from single_runs import PRECISIONS, assert_near
from tiny_models import VARIANTS, tiny_model
from tiny_task import tiny_data

from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.finetuning_run import Finetuned, FinetuningRun
from lightning_icl.probing.group import GroupFinetuning, group_steps
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.probing.probe import ICLProbe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
# float64: cosines of rotary embeddings are taken in float32 by transformers, on either device.
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])


def compared(
    variant: str, dtype: torch.dtype, device: str, folder: Path
) -> tuple[dict[str, torch.Tensor], dict[str, float], list[dict[str, tuple[float, ...]]]]:
    """Overlay, metrics and scores of a comparison."""
    data, model = tiny_data(folder), tiny_model(variant, dtype=dtype)
    probe = ICLProbe(model, data.demonstrations)
    trainer = make_trainer(KVFinetuning(RATE), accelerator=device, devices=1, precision=PRECISIONS[dtype])
    trainer.fit(probe, datamodule=data)
    (metrics,) = trainer.validate(probe, datamodule=data, verbose=False)
    assert probe.finetuned is not None
    overlay = {name: tensor.cpu() for name, tensor in probe.finetuned.overlay.tensors.items()}
    return overlay, metrics, [dict(query.scores) for query in probe.predictions]


@DTYPES
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_comparison_is_the_processors(variant: str, dtype: torch.dtype, tolerance: float, tmp_path: Path) -> None:
    (overlay, metrics, scores), (other_overlay, other_metrics, other_scores) = (
        compared(variant, dtype, device, tmp_path) for device in ("gpu", "cpu")
    )
    for name, tensor in overlay.items():
        torch.testing.assert_close(tensor, other_overlay[name], rtol=0, atol=tolerance)
    for query, other in zip(scores, other_scores, strict=True):
        for view, values in query.items():
            assert values == pytest.approx(other[view], rel=0, abs=10 * tolerance)
    # A cosine of small updates magnifies rounding, and ranks that are nearly tied change places.
    near = {torch.float64: 1e-4, torch.float32: 5e-3}[dtype]
    assert metrics == pytest.approx(other_metrics, rel=0, abs=near, nan_ok=True)


@DTYPES
@pytest.mark.parametrize("variant", ["gpt2", "llama", "falcon-grouped", "gemma3_text"])
def test_fine_tunings_together_are_what_each_is_alone(
    variant: str, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    chosen = tiny_data(tmp_path).demonstrations
    runs = [FinetuningRun(learning_rate=rate, demonstrations=chosen) for rate in (0.05, 0.01, 0.2)]

    def together(some: list[FinetuningRun]) -> list[Finetuned]:
        group = GroupFinetuning(some)
        trainer = make_trainer(group, accelerator="gpu", devices=1, precision=PRECISIONS[dtype])
        trainer.fit(FinetunedModule(tiny_model(variant, dtype=dtype), chosen), group_steps(some))
        return list(group.finetuned.values())

    for one, run in zip(together(runs), runs, strict=True):
        assert_near(one, together([run])[0], tolerance)
