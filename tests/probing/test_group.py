"""Fine-tunings that take their steps together come to what each comes to alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from exactness import make_trainer
from single_runs import PRECISIONS, alone, assert_near
from tiny_models import VARIANTS, tiny_model
from tiny_task import tiny_data
from transformers import PreTrainedModel

from lightning_icl.errors import NumericalError, ProtocolError
from lightning_icl.models.kv import Trained
from lightning_icl.probing.finetuning_run import FinetuningRun
from lightning_icl.probing.group import GroupFinetuning, group_steps
from lightning_icl.probing.module import FinetunedModule


def runs_of(folder: Path, rates: Sequence[float] = (0.05, 0.01, 0.2)) -> list[FinetuningRun]:
    """Rates and seeds, demonstrations of different lengths and numbers."""
    sets = [tiny_data(folder, seed=seed, shots=shots).demonstrations for seed, shots in ((1, 5), (2, 3))]
    return [FinetuningRun(learning_rate=rate, demonstrations=chosen) for chosen in sets for rate in rates]


def together(model: PreTrainedModel, runs: Sequence[FinetuningRun], trained: Trained = "kv") -> GroupFinetuning:
    group = GroupFinetuning(runs, trained)
    trainer = make_trainer(group, precision=PRECISIONS[model.dtype])
    trainer.fit(FinetunedModule(model, runs[0].demonstrations), group_steps(runs))
    return group


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_run_is_what_it_is_alone(variant: str, tmp_path: Path) -> None:
    model, runs = tiny_model(variant, dtype=torch.float64), runs_of(tmp_path)
    group = together(model, runs)
    assert list(group.finetuned) == list(range(6))
    for number, run in enumerate(runs):
        assert_near(group.finetuned[number], alone(model, run), 1e-10)


@pytest.mark.parametrize("variant", ["gpt2", "llama", "falcon-grouped"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_narrower_numbers_agree_to_their_rounding(
    variant: str, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    model, runs = tiny_model(variant, dtype=dtype), runs_of(tmp_path)
    group = together(model, runs)
    for number, run in enumerate(runs):
        assert_near(group.finetuned[number], alone(model, run), tolerance)


@pytest.mark.parametrize("variant", ["gpt2", "llama", "gpt_neox"])
def test_query_projections_learn_together_too(variant: str, tmp_path: Path) -> None:
    model, runs = tiny_model(variant, dtype=torch.float64), runs_of(tmp_path)
    group = together(model, runs, "query")
    for number, run in enumerate(runs):
        assert_near(group.finetuned[number], alone(model, run, "query"), 1e-10)


def test_a_rate_that_diverges_leaves_the_others_alone(tmp_path: Path) -> None:
    model = tiny_model("gpt2", dtype=torch.float64)
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    runs = runs_of(tmp_path, (1e200, 0.05))
    group = together(model, runs)
    assert list(group.finetuned) == [1, 3]
    assert list(group.diverged) == [0, 2]
    for number in (1, 3):
        assert_near(group.finetuned[number], alone(model, runs[number]), 1e-10)
    with pytest.raises(NumericalError) as refused:
        alone(model, runs[0])
    assert group.diverged[0] == str(refused.value)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name][0]), name
        assert value.requires_grad == before[name][1], name


def test_a_group_that_diverges_altogether_comes_to_nothing(tmp_path: Path) -> None:
    group = together(tiny_model("gpt2"), runs_of(tmp_path, (1e30, 1e35)))
    assert group.finetuned == {}
    assert list(group.diverged) == [0, 1, 2, 3]


def test_steps_in_another_order_are_refused(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    module = FinetunedModule(tiny_model("gpt2"), runs[0].demonstrations)
    with pytest.raises(ProtocolError, match="Step 0 of the fine-tuning"):
        make_trainer(GroupFinetuning(runs)).fit(module, group_steps(runs[::-1]))
