"""A group of fine-tunings keeps within the memory that is stated before it starts, and what is stated is no dream."""

from pathlib import Path

import pytest
import torch
from exactness import make_trainer
from live_bytes import LiveBytes
from single_runs import PRECISIONS
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.probing.finetuning_run import FinetuningRun
from lightning_icl.probing.group import GroupFinetuning, group_steps
from lightning_icl.probing.group_memory import group_bytes
from lightning_icl.probing.module import FinetunedModule

WIDE_WORDS = {"vocab_size": 20_000}


@pytest.mark.parametrize(
    ("variant", "dtype", "changes"),
    [
        ("gpt2", torch.float32, {"n_inner": 512}),
        ("gpt2", torch.bfloat16, {}),
        ("llama", torch.float32, {"intermediate_size": 512}),
        ("llama", torch.float64, {}),
        ("gemma3_text", torch.float32, {}),
        ("gemma3_text", torch.float32, WIDE_WORDS),
        ("gpt_neox", torch.float32, {"num_hidden_layers": 6}),
    ],
)
@pytest.mark.parametrize("count", [2, 6])
def test_a_group_keeps_within_the_memory_that_is_stated(
    variant: str, dtype: torch.dtype, changes: dict[str, int], count: int, tmp_path: Path
) -> None:
    model = tiny_model(variant, dtype=dtype, **changes)
    sets = [tiny_data(tmp_path, seed=seed, shots=4).demonstrations for seed in (1, 2)]
    runs = [FinetuningRun(learning_rate=1e-3, demonstrations=sets[number % 2]) for number in range(count)]
    trainer = make_trainer(GroupFinetuning(runs), precision=PRECISIONS[dtype])
    with LiveBytes(model) as live:
        trainer.fit(FinetunedModule(model, sets[0]), group_steps(runs))
    stated = group_bytes(model, runs)
    assert live.peak <= stated, f"{live.peak / stated:.2f} of what was stated"
    assert live.peak >= 0.2 * stated
