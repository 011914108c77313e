"""Means over queries as sums and counts: the one kind of state that most metrics here keep.

Sums do not depend on how queries were batched or divided among processes, beyond float64 rounding. Shapes are fixed
when a metric is made, so that a process without queries adds up with the others.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class QueryMeans(Metric):
    """Means over queries of named per-query tensors; undefined (NaN) entries are left out and counted.

    Subclasses call `_add(name, values)` with values (batch, *shape) and read `_mean(name)`, shape (*shape). A mean
    over nothing is NaN, never 0.

    Args:
        shapes: the shape of each quantity for one query.
        kwargs: see `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better: bool | None = None
    is_differentiable = False

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, shape in shapes.items():
            self.add_state(f"{name}_sum", default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{name}_count", default=torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, name: str, values: Tensor) -> None:
        total: Tensor = getattr(self, f"{name}_sum")
        count: Tensor = getattr(self, f"{name}_count")
        if values.shape[1:] != total.shape:
            raise ValueError(
                f"{type(self).__name__} was made for {tuple(total.shape)} values a query (layers first); it got "
                f"{tuple(values.shape[1:])}."
            )
        defined = torch.isfinite(values)
        total += torch.where(defined, values.to(total.dtype), 0.0).sum(0)
        count += defined.sum(0)

    def _mean(self, name: str) -> Tensor:
        total, count = getattr(self, f"{name}_sum"), getattr(self, f"{name}_count")
        return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def mean_of_defined(values: Tensor) -> float:
    """Mean over layers (and heads) of what is defined; NaN where nothing is.

    >>> mean_of_defined(torch.tensor([1.0, float("nan"), 3.0]))
    2.0
    """
    return float(values.nanmean())
