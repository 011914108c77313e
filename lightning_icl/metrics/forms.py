"""What a metric over queries gives: named forms of one measure, each with its value, its curve and what it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """One form of a measure, averaged over queries."""

    per_layer: Float[Tensor, " layer"]
    """Mean over queries (and heads) in each layer; NaN where it is undefined for every query."""
    per_head: Float[Tensor, "layer head"] | None = None
    """Mean over queries in each head, where the measure has heads."""
    undefined: Mapping[str, Float[Tensor, " layer"]] = field(default_factory=dict)
    """By reason the share of queries (and heads) of each layer that had no value for it."""
    rounding: Float[Tensor, " layer"] | None = None
    """How far rounding may move the mean of each layer, where the measure divides by the length of a difference."""

    @property
    def value(self) -> float:
        """Mean over the layers that have one; NaN where none has."""
        return mean_of_defined(self.per_layer)


def mean_of_defined(values: Tensor) -> float:
    """Mean over layers (and heads) of what is defined; NaN where nothing is.

    >>> import torch
    >>> mean_of_defined(torch.tensor([1.0, float("nan"), 3.0]))
    2.0
    """
    # A layer without a value would make the whole mean NaN otherwise.
    return float(values.nanmean())


def flattened(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result under the keys of `results.json`: `NAME`, `NAME_per_layer`, `NAME_per_head` of each form.

    The first form is the main one: its keys are `value`, `per_layer` and `per_head`. What is no form stays as it is.

    >>> import torch
    >>> forms = {"scores": Form(per_layer=torch.tensor([1.0])), "raw": Form(per_layer=torch.tensor([0.5]))}
    >>> flattened(forms)
    {'value': 1.0, 'per_layer': tensor([1.]), 'raw': 0.5, 'raw_per_layer': tensor([0.5000])}
    """
    flat: dict[str, Any] = {}
    for place, (name, form) in enumerate(result.items()):
        # Counts and tables pass through under their names.
        if not isinstance(form, Form):
            flat[name] = form
            continue
        before = f"{name}_" if place else ""
        flat |= {name if place else "value": form.value, f"{before}per_layer": form.per_layer}
        if form.per_head is not None:
            flat[f"{before}per_head"] = form.per_head
    return flat
