"""Means over queries as sums and counts: the one kind of state that most metrics here keep.

Sums do not depend on how queries were batched or divided among processes, beyond float64 rounding. Shapes are fixed
when a metric is made, so that a process without queries adds up with the others.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_icl.metrics.bootstrap import Bootstrapped, percentile_interval, poisson_weights


class QueryMeans(Metric):
    """Means over queries of named per-query tensors; undefined (NaN) entries are left out and counted.

    Subclasses call `_add(name, values)` with values (batch, *shape) and read `_mean(name)`, shape (*shape), layers
    first. A mean over nothing is NaN, never 0.

    With replicates, the same sums are kept under each replicate's weights, for each layer: a query's heads are averaged
    first. That is the reported mean exactly as long as a layer's undefined heads are the same for every query; where
    a head is undefined for some queries only, a replicate averages the heads that each query has.

    Args:
        shapes: the shape of each quantity for one query.
        replicates: of the Poisson bootstrap; 0 keeps none.
        kwargs: see `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better: bool | None = None
    is_differentiable = False

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], replicates: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replicates = replicates
        self.names = tuple(shapes)
        for name, shape in shapes.items():
            self.add_state(f"{name}_sum", default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{name}_count", default=torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
            for state in ("replicate_sum", "replicate_count") if replicates else ():
                zeros = torch.zeros(replicates, shape[0], dtype=torch.float64)
                self.add_state(f"{name}_{state}", default=zeros, dist_reduce_fx="sum")

    def _weights(self, query_ids: Tensor | None, weights: Tensor | None) -> Tensor | None:
        """The batch's weights (query, replicate); None without replicates."""
        return batch_weights(self, self.replicates, query_ids, weights)

    def _add(self, name: str, values: Tensor, weights: Tensor | None = None) -> None:
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
        if weights is not None:
            self._add_replicates(name, torch.where(defined, values.to(total.dtype), torch.nan), weights)

    def _add_replicates(self, name: str, values: Tensor, weights: Tensor) -> None:
        if values.dim() > 2:
            values = values.flatten(2).nanmean(-1)
        total: Tensor = getattr(self, f"{name}_replicate_sum")
        count: Tensor = getattr(self, f"{name}_replicate_count")
        total += weights.T @ values.nan_to_num(0.0)
        count += weights.T @ torch.isfinite(values).to(weights.dtype)

    def _mean(self, name: str) -> Tensor:
        total, count = getattr(self, f"{name}_sum"), getattr(self, f"{name}_count")
        return torch.where(count > 0, total / count.clamp(min=1), torch.nan)

    def bootstrap(self) -> dict[str, Bootstrapped]:
        """Every figure of the result and its curve over layers with replicates and interval, by their result's names.

        An interval is undefined (NaN) where fewer than two queries have a value. To be called by all processes, like
        `compute`; empty without replicates.
        """
        found: dict[str, Bootstrapped] = {}
        with self.sync_context():
            for name in self.names if self.replicates else ():
                found[name], found["per_layer" if name == "value" else f"{name}_per_layer"] = self._bootstrap(name)
        return found

    def _bootstrap(self, name: str) -> tuple[Bootstrapped, Bootstrapped]:
        means, queries = self._mean(name).cpu(), getattr(self, f"{name}_count").cpu()
        if means.dim() > 1:
            means, queries = means.flatten(1).nanmean(-1), queries.flatten(1).amax(-1)
        curves = getattr(self, f"{name}_replicate_sum").cpu() / getattr(self, f"{name}_replicate_count").cpu()
        figures, several = curves.nanmean(-1), queries > 1
        return (
            Bootstrapped(means.nanmean(), figures, percentile_interval(figures).where(several.any(), torch.nan)),
            Bootstrapped(means, curves, percentile_interval(curves).where(several, torch.nan)),
        )


def batch_weights(metric: Metric, replicates: int, query_ids: Tensor | None, weights: Tensor | None) -> Tensor | None:
    """Bootstrap weights of a batch (query, replicate): those given, else drawn here; None for no replicates.

    Raises:
        ValueError: there are replicates but no row numbers to draw them by, or weights of another number of them.
    """
    if not replicates:
        return None
    if weights is None:
        if query_ids is None:
            raise ValueError(f"{type(metric).__name__} with replicates={replicates} needs query_ids in update.")
        return poisson_weights(query_ids, replicates)
    if weights.shape[1] != replicates:
        raise ValueError(f"{type(metric).__name__} with replicates={replicates} got weights of {weights.shape[1]}.")
    return weights


def mean_of_defined(values: Tensor) -> float:
    """Mean over layers (and heads) of what is defined; NaN where nothing is.

    >>> mean_of_defined(torch.tensor([1.0, float("nan"), 3.0]))
    2.0
    """
    return float(values.nanmean())
