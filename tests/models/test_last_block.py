"""The last block's MLP computes what is read, and nothing else, in every architecture."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_models import VARIANTS, tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from lightning_icl.data.queries import Query, collate
from lightning_icl.models.architecture import architecture_of
from lightning_icl.models.capture import Capture
from lightning_icl.models.projection import weight_of
from lightning_icl.records import QueryBatch

PROMPTS = ((5, 6, 7, 8), (9, 10, 11, 12, 13))


def batch(*answers: tuple[int, ...]) -> QueryBatch:
    return collate([Query(index=i, gold=0, prompt_ids=ids, answers=answers) for i, ids in enumerate(PROMPTS)])


class Products(TorchDispatchMode):
    """Counts the tokens that the first matrix of each block's MLP is multiplied with."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        architecture = architecture_of(model.config)
        blocks = model.get_submodule(architecture.layers).children()
        matrices = [weight_of(block.get_submodule(architecture.first_mlp[0])) for block in blocks]
        self._numbers = {matrix.untyped_storage().data_ptr(): number for number, matrix in enumerate(matrices)}
        self._outputs = [len(matrix) for matrix in matrices]
        self.tokens = [0] * len(matrices)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for argument in args:
            number = self._numbers.get(argument.untyped_storage().data_ptr()) if isinstance(argument, Tensor) else None
            # A view of the weight is no product yet.
            if number is not None and out.untyped_storage().data_ptr() != argument.untyped_storage().data_ptr():
                self.tokens[number] += out.numel() // self._outputs[number]
        return out


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_block_works_on_tokens_that_are_read(variant: str) -> None:
    model = tiny_model(variant)
    with Capture(model) as capture:
        with Products(model) as products:
            prefix = capture.prefix([1, 20, 21, 22])
        # Of a prefix, the last block's keys and values are all that is kept.
        assert products.tokens == [4, 4, 0]
        with Products(model) as products:
            capture.observe(batch((5,), (6,)), prefix)
        assert products.tokens == [10, 10, 2]  # two rows of five tokens, each read where its answer is predicted
        branched = batch((5,), (6, 7))
        with Products(model) as products:
            capture.observe(branched, prefix)
        assert products.tokens == [branched.token_ids.numel()] * 2 + [len(branched.logit_rows)]
        with Products(model) as products:
            capture.train_forward(torch.tensor([[1, 5, 6, 7]]), [slice(0, 3)])
        assert products.tokens == [4, 4, 4]
    with Products(model) as products:
        model(torch.tensor([[1, 5, 6, 7]]), use_cache=False)
    assert products.tokens == [4, 4, 4]
