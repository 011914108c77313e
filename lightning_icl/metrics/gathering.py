"""What several processes have, brought together: the states of many metrics by one exchange, and other findings.

torchmetrics gathers state by state, three exchanges each, whenever a figure is asked for: a comparison has hundreds of
states, and small ones. All of them are sums here.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_sum

Item = TypeVar("Item")


def gathered(own: Item) -> list[Item]:
    """What every process has, in their order."""
    if not _several():
        return [own]
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, own)
    return shares


def add_up(metrics: Iterable[Metric]) -> None:
    """Give the metrics of every process the sums over all processes, by one exchange for each type of number.

    Nothing happens without several processes. The metrics must be the same ones everywhere, and not be updated any
    more; asked for figures, they exchange nothing again.

    Args:
        metrics: whose states are all sums.

    Raises:
        ValueError: a state is no sum.
    """
    if not _several():
        return
    states: dict[torch.dtype, list[Tensor]] = {}
    for metric in metrics:
        for name, reduction in metric._reductions.items():
            state = getattr(metric, name)
            if reduction is not dim_zero_sum:
                raise ValueError(f"State {name!r} of {type(metric).__name__} is no sum.")
            states.setdefault(state.dtype, []).append(state)
        metric.distributed_available_fn = _alone
    for own in states.values():
        joined = torch.cat([state.reshape(-1) for state in own])
        torch.distributed.all_reduce(joined)
        for state, total in zip(own, joined.split([state.numel() for state in own]), strict=True):
            state.copy_(total.view_as(state))


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _alone(*_: object) -> bool:
    return False
