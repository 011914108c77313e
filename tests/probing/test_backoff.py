"""When memory runs out a batch is observed in parts: the same numbers, said once, and an end when nothing fits."""

from pathlib import Path

import pytest
import torch
from exactness import make_trainer
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.data.queries import collate
from lightning_icl.errors import MemoryShortError
from lightning_icl.metrics.forms import flattened
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe

ERRORS = {
    "gpu": torch.cuda.OutOfMemoryError("CUDA out of memory."),
    "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
}


def compared(folder: Path, variant: str, answers: str, most: int, error: Exception) -> tuple[ICLProbe, list[int]]:
    """A comparison on a model that has memory for `most` queries, and the sizes it was asked for in probing."""
    model = tiny_model(variant)
    data = tiny_data(folder, answers, batch_tokens=10_000)
    probe = ICLProbe(model, data.demonstrations)
    trainer = make_trainer(KVFinetuning(0.05))
    trainer.fit(probe, datamodule=data)
    asked: list[int] = []

    def run_out(_: object, __: object, arguments: dict[str, torch.Tensor]) -> None:
        asked.append(len(arguments["input_ids"]))
        if asked[-1] > most:
            raise error

    hook = model.register_forward_pre_hook(run_out, with_kwargs=True)
    try:
        trainer.validate(probe, datamodule=data, verbose=False)
    finally:
        hook.remove()
    return probe, asked


@pytest.mark.parametrize(
    ("variant", "answers", "kind"), [("gpt2", "single", "gpu"), ("mistral-window", "multi", "cpu")]
)
def test_a_batch_in_parts_gives_the_same_numbers(variant: str, answers: str, kind: str, tmp_path: Path) -> None:
    whole, _ = compared(tmp_path, variant, answers, 99, ERRORS[kind])
    with pytest.warns(UserWarning, match="Memory ran out at a batch of 7 queries") as said:
        parts, asked = compared(tmp_path, variant, answers, 2, ERRORS[kind])
    assert len([item for item in said if "Memory ran out" in str(item.message)]) == 1
    assert [size for size in asked if size > 2] == [7, 4], "what did not fit once is not tried again"
    assert [(p.index, p.gold) for p in parts.predictions] == [(p.index, p.gold) for p in whole.predictions]
    for one, other in zip(parts.predictions, whole.predictions, strict=True):
        for name, scores in other.scores.items():
            torch.testing.assert_close(torch.tensor(one.scores[name]), torch.tensor(scores), rtol=0, atol=1e-5)
    assert parts.comparison is not None
    assert whole.comparison is not None
    for one, other in zip(parts.comparison, whole.comparison, strict=True):
        values, reference = flattened(one._asdict()), flattened(other._asdict())
        for name, value in values.items():
            expected = reference[name]
            torch.testing.assert_close(
                torch.as_tensor(value), torch.as_tensor(expected), rtol=0, atol=1e-4, equal_nan=True
            )


def test_a_single_query_that_does_not_fit_ends_with_advice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Memory ran out"), pytest.raises(MemoryShortError, match="--precision bf16"):
        compared(tmp_path, "gpt2", "single", 0, ERRORS["gpu"])


def test_another_error_is_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compared(tmp_path, "gpt2", "single", 2, RuntimeError("shapes cannot be multiplied"))


@pytest.mark.parametrize("answers", ["single", "multi", "choice"])
def test_rows_of_a_batch_ask_for_what_a_batch_of_those_queries_asks(answers: str, tmp_path: Path) -> None:
    queries = tiny_data(tmp_path, answers).queries
    part, alone = collate(queries).rows(2, 5), collate(queries[2:5])
    width = alone.token_ids.shape[1]
    for name in ("query_ids", "gold", "probe_index", "logit_rows", "logit_tokens", "scored_logits", "scored_ids"):
        assert torch.equal(getattr(part, name), getattr(alone, name)), name
    for name in ("scored_rows", "scored_answers", "answer_counts"):
        assert torch.equal(getattr(part, name), getattr(alone, name)), name
    assert torch.equal(part.token_ids[:, :width], alone.token_ids)
    assert torch.equal(part.positions[:, :width], alone.positions)
