"""What memory fine-tunings need that take their steps together, and how many of them a limit allows."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from lightning_icl.models.architecture import architecture_of, head_counts
from lightning_icl.models.kv import slices
from lightning_icl.models.projection import output_width
from lightning_icl.models.rotary import length_scaling
from lightning_icl.probing.finetuning_run import FinetuningRun
from lightning_icl.records import Demonstrations

GIGABYTES = 4.0
"""The limit of a group's memory where the user sets none. A constant and not what the device has free, since a group's
size moves the last digits of its runs."""

# Of each token, how much is kept for the backward pass, as a multiple of the widths of all projections' outputs: norms,
# rotary embedding and activations keep copies of them.
_KEPT = 2.5
_LOGITS = 2  # and their gradient

Item = TypeVar("Item")


def groups_within(
    runs: Sequence[FinetuningRun], model: PreTrainedModel, gigabytes: float = GIGABYTES
) -> list[list[FinetuningRun]]:
    """Runs in groups that are fine-tuned side by side within the memory, in order; at least one run a group."""
    if length_scaling(model.config) is not None:  # rotary angles would follow the padded length, not the example's own
        return [[run] for run in runs]
    longest = _longest(runs)
    return packed(runs, [training_bytes(model, run.demonstrations, longest) for run in runs], gigabytes)


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


def group_bytes(model: PreTrainedModel, runs: Sequence[FinetuningRun]) -> int:
    """Memory of a group beside the model, at most."""
    longest = _longest(runs)
    passing = 4 * _LOGITS * longest * int(model.config.vocab_size)  # of one run at a time, in float32
    return passing + sum(training_bytes(model, run.demonstrations, longest) for run in runs)


def _longest(runs: Sequence[FinetuningRun]) -> int:
    """Tokens to which the examples of a group may be padded."""
    return max((len(run.tokens(step)) for run in runs for step in range(len(run.demonstrations))), default=0)


def training_bytes(model: PreTrainedModel, demonstrations: Demonstrations, longest: int) -> int:
    """Memory of one fine-tuning that takes its steps beside others: masters, states kept for the backward pass and for
    the step, logits, and the query vectors of all steps.

    Args:
        model: that learns.
        demonstrations: that it learns from.
        longest: tokens of the longest example of the group.
    """
    element = max(4, torch.finfo(model.dtype).bits // 8)  # masters and what they take a step by are float32 at least
    # A gradient is kept as its factors: inputs and gradients of outputs of what is trained.
    factors = sum(sum(part.shape) for part in slices(model))
    blocks = model.get_submodule(architecture_of(model.config).layers).modules()
    widths = sum(map(output_width, blocks))
    states = _KEPT * widths + factors + _LOGITS * int(model.config.vocab_size)
    return run_bytes(model, demonstrations) + element * int(longest * states)


def run_bytes(model: PreTrainedModel, demonstrations: Demonstrations) -> int:
    """Memory of one fine-tuning that waits to be observed: masters, the same in the model's type, query vectors."""
    heads, _, width = head_counts(model.config)
    vectors = int(model.config.num_hidden_layers) * len(demonstrations.prefix_token_ids) * heads * width
    element, weights = torch.finfo(model.dtype).bits // 8, 0
    for part in slices(model):
        # Narrow models hold the weights twice: as masters, and rounded to their own type.
        weights += part.shape.numel() * (max(4, element) + (element if element < 4 else 0))
    return weights + element * vectors
