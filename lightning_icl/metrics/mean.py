"""Means over queries as sums and counts: the one kind of state that most metrics here keep.

Sums do not depend on how queries were batched or divided among processes, beyond float64 rounding. Shapes are fixed
when a metric is made, so that a process without queries adds up with the others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_icl.metrics.bootstrap import Bootstrapped, percentile_interval, poisson_weights
from lightning_icl.metrics.forms import Form


class QueryMeans(Metric):
    """Means over queries of named per-query tensors; undefined (NaN) entries are left out and counted.

    Subclasses call `_add(name, values)` with values (batch, *shape) and read `_mean(name)` or `_form(name)`, shape
    (*shape), layers first. A mean over nothing is NaN, never 0.

    With replicates, the same sums are kept under each replicate's weights, for each layer: a query's heads are averaged
    first. That is the reported mean exactly as long as a layer's undefined heads are the same for every query; where
    a head is undefined for some queries only, a replicate averages the heads that each query has.

    Args:
        shapes: the shape of each quantity for one query; the first is what `compute` gives the mean of.
        replicates: of the Poisson bootstrap; 0 keeps none.
        reasons: by quantity why a query may have no value; those that are not named have none to tell.
        rounded: quantities of which rounding is counted.
        kwargs: see `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better: bool | None = None
    is_differentiable = False

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        replicates: int = 0,
        reasons: Mapping[str, Sequence[str]] | None = None,
        rounded: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.replicates = replicates
        self.names = tuple(shapes)
        self.reasons = {} if reasons is None else dict(reasons)
        self.rounded = tuple(rounded)
        # Sums and counts instead of running means: they add up across processes in any order.
        for name, shape in shapes.items():
            layers = shape[:1]
            self._add_state(f"{name}_sum", shape)
            self._add_state(f"{name}_count", shape, torch.int64)
            for state in ("replicate_sum", "replicate_count") if replicates else ():
                # Per layer and not per head: 1,000 replicates of every head would be larger than everything else a
                # metric holds.
                self._add_state(f"{name}_{state}", (replicates, *layers))
            if name in self.reasons:
                self._add_state(f"{name}_undefined", (len(self.reasons[name]), *layers), torch.int64)
            if name in self.rounded:
                self._add_state(f"{name}_rounding", layers)

    def _add_state(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> None:
        self.add_state(name, default=torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def _weights(self, query_ids: Tensor | None, weights: Tensor | None) -> Tensor | None:
        """The batch's weights (query, replicate); None without replicates."""
        return batch_weights(self, self.replicates, query_ids, weights)

    def _add(
        self,
        name: str,
        values: Tensor,
        weights: Tensor | None = None,
        *,
        reasons: Sequence[Tensor] = (),
        rounding: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            name: of the quantity.
            values: (batch, *shape).
            weights: of the bootstrap.
            reasons: for each of its reasons where it applies (batch, *shape); the first that does counts.
            rounding: how far rounding may move each value (batch, *shape).
        """
        total: Tensor = getattr(self, f"{name}_sum")
        count: Tensor = getattr(self, f"{name}_count")
        if values.shape[1:] != total.shape:
            raise ValueError(
                f"{type(self).__name__} was made for {tuple(total.shape)} values a query (layers first); it got "
                f"{tuple(values.shape[1:])}."
            )
        # As a NaN would swallow the sum, it is left out and counted.
        defined = torch.isfinite(values)
        # `where` before the sum, since NaN times a mask is NaN.
        total += torch.where(defined, values.to(total.dtype), 0.0).sum(0)
        count += defined.sum(0)
        if weights is not None:
            self._add_replicates(name, torch.where(defined, values.to(total.dtype), torch.nan), weights)
        unexplained = ~defined
        for number, applies in enumerate(reasons):
            getattr(self, f"{name}_undefined")[number] += _by_layer(unexplained & applies)
            unexplained = unexplained & ~applies
        if rounding is not None:
            getattr(self, f"{name}_rounding").add_(_by_layer(torch.where(defined, rounding.to(total.dtype), 0.0)))

    def _add_replicates(self, name: str, values: Tensor, weights: Tensor) -> None:
        if values.dim() > 2:
            # Heads first: per-head replicates are not kept (see the class).
            values = values.flatten(2).nanmean(-1)
        total: Tensor = getattr(self, f"{name}_replicate_sum")
        count: Tensor = getattr(self, f"{name}_replicate_count")
        # One matrix product adds the batch to all replicates.
        total += weights.T @ values.nan_to_num(0.0)
        count += weights.T @ torch.isfinite(values).to(weights.dtype)

    def _mean(self, name: str) -> Tensor:
        total, count = getattr(self, f"{name}_sum"), getattr(self, f"{name}_count")
        # The clamp keeps 0 out of the denominator where `where` discards the quotient anyway.
        return torch.where(count > 0, total / count.clamp(min=1), torch.nan)

    def _form(self, name: str) -> Form:
        """A quantity's means over queries per layer, and per head where it has heads."""
        means, defined = self._mean(name), _by_layer(getattr(self, f"{name}_count")[None]).double()
        undefined, rounding = {}, None
        if name in self.reasons:
            counts = getattr(self, f"{name}_undefined").double()
            entries = (defined + counts.sum(0)).clamp(min=1)
            undefined = dict(zip(self.reasons[name], counts / entries, strict=True))
        if name in self.rounded:
            rounding = getattr(self, f"{name}_rounding") / defined  # NaN where nothing is defined
        if means.dim() == 1:
            return Form(per_layer=means, undefined=undefined, rounding=rounding)
        per_layer = means.flatten(1).nanmean(-1)
        return Form(per_layer=per_layer, per_head=means, undefined=undefined, rounding=rounding)

    def compute(self) -> Any:
        """The main figure over all queries, a tensor of one number; NaN where it is undefined."""
        return self._form(self.names[0]).per_layer.nanmean()

    def bootstrap(self) -> dict[str, Bootstrapped]:
        """Every figure of the result and its curve over layers with replicates and interval, by its key in results.

        An interval is undefined (NaN) where fewer than two queries have a value. To be called by all processes, like
        `compute`; empty without replicates.
        """
        figures: dict[str, Bootstrapped] = {}
        with self.sync_context():
            # All processes must enter the block above even without replicates, or the others would wait.
            for place, name in enumerate(self.names) if self.replicates else ():
                key, curve = (name, f"{name}_per_layer") if place else ("value", "per_layer")
                figures[key], figures[curve] = self._bootstrap(name)
        return figures

    def _bootstrap(self, name: str) -> tuple[Bootstrapped, Bootstrapped]:
        means, queries = self._mean(name).cpu(), getattr(self, f"{name}_count").cpu()
        if means.dim() > 1:
            # A layer counts as many queries as its best-covered head.
            means, queries = means.flatten(1).nanmean(-1), queries.flatten(1).amax(-1)
        curves = getattr(self, f"{name}_replicate_sum").cpu() / getattr(self, f"{name}_replicate_count").cpu()
        # The mean over layers is taken in each replicate, so that correlated layers widen the interval as they should.
        figures, several = curves.nanmean(-1), queries > 1
        return (
            Bootstrapped(means.nanmean(), figures, percentile_interval(figures).where(several.any(), torch.nan)),
            Bootstrapped(means, curves, percentile_interval(curves).where(several, torch.nan)),
        )


def _by_layer(values: Tensor) -> Tensor:
    """(layer,): sums over a batch (batch, layer, ...) of queries and heads."""
    return values.flatten(2).sum((0, 2)) if values.dim() > 2 else values.sum(0)


def batch_weights(metric: Metric, replicates: int, query_ids: Tensor | None, weights: Tensor | None) -> Tensor | None:
    """Bootstrap weights of a batch (query, replicate): those passed in, else drawn here; None for no replicates.

    Raises:
        ValueError: there are replicates but no row numbers to draw them by, or weights of another number of them.
    """
    # Before anything is drawn: callers pass no row numbers where no bootstrap is wanted.
    if not replicates:
        return None
    if weights is None:
        if query_ids is None:
            raise ValueError(f"{type(metric).__name__} with replicates={replicates} needs query_ids in update.")
        return poisson_weights(query_ids, replicates)
    if weights.shape[1] != replicates:
        raise ValueError(f"{type(metric).__name__} with replicates={replicates} got weights of {weights.shape[1]}.")
    return weights
