"""What memory fine-tunings need that take their steps together, and how many of them a limit allows."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from lightning_icl.models.architecture import head_counts
from lightning_icl.models.kv import slices
from lightning_icl.models.rotary import length_scaling
from lightning_icl.probing.finetuning import Run
from lightning_icl.records import Demonstrations

GIGABYTES = 4.0
"""For a group, where nobody gave another limit. A constant, since a group's size moves the last digits of its runs."""

# Of each token and layer, the widths of the model that are kept for the backward pass: norms, projections, MLP.
_STATES = 24

Item = TypeVar("Item")


def groups_within(runs: Sequence[Run], model: PreTrainedModel, gigabytes: float = GIGABYTES) -> list[list[Run]]:
    """Runs in groups that are fine-tuned side by side within the memory, in order; at least one run a group."""
    if length_scaling(model.config) is not None:  # a padded example would turn at the angles of a longer one
        return [[run] for run in runs]
    return packed(runs, [training_bytes(model, run.demonstrations) for run in runs], gigabytes)


def packed(items: Sequence[Item], sizes: Sequence[int], gigabytes: float) -> list[list[Item]]:
    """Items in order, cut where the bytes of a group would be more than the limit; at least one in a group."""
    groups: list[list[Item]] = []
    used = 0
    for item, size in zip(items, sizes, strict=True):
        if not groups or used + size > gigabytes * 1e9:
            groups.append([])
            used = 0
        groups[-1].append(item)
        used += size
    return groups


def group_bytes(model: PreTrainedModel, runs: Sequence[Run]) -> int:
    """Memory of a group beside the model."""
    return sum(training_bytes(model, run.demonstrations) for run in runs)


def training_bytes(model: PreTrainedModel, demonstrations: Demonstrations) -> int:
    """Memory of one fine-tuning that takes its steps beside others: masters, gradients, states kept for the backward
    pass, logits, and the query vectors of all steps."""
    config, element = model.config, max(4, torch.finfo(model.dtype).bits // 8)
    weights = sum(part.shape.numel() for part in slices(model))
    longest = len(demonstrations.bos) + max(map(len, demonstrations.examples))
    states = _STATES * int(config.num_hidden_layers) * int(config.hidden_size) + 3 * int(config.vocab_size)
    return run_bytes(model, demonstrations) + element * (weights + longest * states)


def run_bytes(model: PreTrainedModel, demonstrations: Demonstrations) -> int:
    """Memory of one fine-tuning that waits to be observed: masters, the same in the model's type, query vectors."""
    heads, _, width = head_counts(model.config)
    vectors = int(model.config.num_hidden_layers) * len(demonstrations.prefix_token_ids) * heads * width
    element, weights = torch.finfo(model.dtype).bits // 8, 0
    for part in slices(model):
        weights += part.shape.numel() * (max(4, element) + (element if element < 4 else 0))
    return weights + element * vectors
