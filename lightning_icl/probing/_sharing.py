"""Fine-tunings of a group shared among the processes of a run: each makes some, and gives what they learnt to all.

Steps of one run follow each other and cannot be divided, but runs can. Weights travel from their process to the others
as the tensors they are: pickled, they would be in memory several times.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lightning_icl.metrics.gathering import gathered
from lightning_icl.probing.finetuning_run import Finetuned
from lightning_icl.records import KVOverlay


def handed_round(own: Mapping[int, Finetuned], device: torch.device) -> dict[int, Finetuned]:
    """By number of run what all processes have learnt, in order and to the bit.

    Args:
        own: by number of run what this process has learnt.
        device: where it keeps what the others have.
    """
    outlines = gathered({number: _with_tensors(item, _outline) for number, item in own.items()})
    if len(outlines) == 1:
        return dict(sorted(own.items()))
    learnt: dict[int, Finetuned] = {}
    for owner, of_owner in enumerate(outlines):
        for number, outline in of_owner.items():
            item = own[number] if number in own else _with_tensors(outline, partial(_room, device=device))
            learnt[number] = _with_tensors(item, partial(_broadcast, owner=owner))
    return dict(sorted(learnt.items()))


def _with_tensors(item: Finetuned, change: Callable[[Tensor], Tensor]) -> Finetuned:
    """The same with other tensors."""
    overlay = KVOverlay(tensors={name: change(tensor) for name, tensor in item.overlay.tensors.items()})
    queries = None if item.training_queries is None else change(item.training_queries)
    return replace(item, overlay=overlay, training_queries=queries)


def _outline(tensor: Tensor) -> Tensor:
    """Its shape and type without numbers."""
    return tensor.to("meta")


def _room(outline: Tensor, device: torch.device) -> Tensor:
    return torch.empty(outline.shape, dtype=outline.dtype, device=device)


def _broadcast(tensor: Tensor, owner: int) -> Tensor:
    """The owner's numbers, in every process."""
    tensor = tensor.contiguous()
    # As bytes, since not every backend knows every type of number.
    torch.distributed.broadcast(tensor.view(-1).view(torch.uint8), src=owner)
    return tensor
