"""Token embeddings looked up once for a batch of queries, however many conditions observe it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_icl.models.adapters import replaced_forwards
from lightning_icl.records import QueryBatch


@contextmanager
def shared_embedding(embedding: nn.Module, batch: Callable[[], QueryBatch | None]) -> Iterator[None]:
    """Until the context ends, a batch that is observed again under the same embedding weights gets the same tensor.

    Args:
        embedding: the model's input embedding.
        batch: the batch under observation; None in a prefix or in training, which are left alone.
    """
    look_up = embedding.forward
    known: tuple[QueryBatch, torch.UntypedStorage, Tensor] | None = None

    def embed(token_ids: Tensor) -> Tensor:
        nonlocal known
        now, weight = batch(), embedding.get_parameter("weight").untyped_storage()
        if now is None:
            return look_up(token_ids)
        if known is None or known[0] is not now or known[1] is not weight:
            known = now, weight, look_up(token_ids)
        return known[2]

    with replaced_forwards({embedding: embed}):
        yield
