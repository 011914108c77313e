"""A batch is embedded once for all conditions under the same embedding weights, and again under others."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import VARIANTS, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_icl.data.queries import Query, collate
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import LaidOver
from lightning_icl.models.masters import Masters

PROMPTS = ((5, 6, 7, 8), (9, 10, 11, 12, 13))


class LookUps(TorchDispatchMode):
    """Counts look-ups in a table of a vocabulary's size."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func is torch.ops.aten.embedding.default and len(args[0]) == 97
        return func(*args, **(kwargs or {}))


def batch() -> Any:
    return collate([Query(index=i, gold=0, prompt_ids=ids, answers=((5,), (6, 7))) for i, ids in enumerate(PROMPTS)])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_embedded_once_however_often_it_is_observed(variant: str) -> None:
    with Capture(tiny_model(variant)) as capture:
        prefixes = [capture.prefix([1]), capture.prefix([1, 20, 21, 22])]
        with LookUps() as look_ups:
            first = batch()
            for prefix in (*prefixes, prefixes[0]):
                logits, _ = capture.observe(first, prefix)
            assert look_ups.count == 1
            again, _ = capture.observe(batch(), prefixes[0])
            assert look_ups.count == 2
    assert torch.equal(logits, again)


def test_weights_with_another_embedding_are_looked_up_anew() -> None:
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    observed = batch()
    with Capture(other) as capture:
        expected, _ = capture.observe(observed, None)
    with Capture(model) as capture:
        own, _ = capture.observe(observed, None)
        with LaidOver(model, Masters(other, "all").overlay()).active():
            found, _ = capture.observe(observed, None)
        after, _ = capture.observe(observed, None)
    assert torch.equal(found, expected)
    assert torch.equal(after, own)
    assert not torch.equal(found, own)
