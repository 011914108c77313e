"""Why a figure has no value: a reason for every null of a comparison, and what rounding may do to the rest."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_icl.metrics.forms import Form
from lightning_icl.probing.contrast import Comparison, Contrast

_LEVELS = Comparison._fields
_SHARES = {
    "value": "fine-tuning corrected no query",
    "reverse_recall": "in-context learning corrected no query",
    "agreement": "there were no queries",
}


def undefined(comparison: Comparison | None, contrast: Contrast | None) -> dict[str, str]:
    """A reason for every null, by dotted key.

    Where a figure has no value in any layer its own key stands for its curve too, else each layer without one has its
    place: `sim_aou.per_layer[0]`.

    Args:
        comparison: what was measured; None where there was no fine-tuning.
        contrast: which comparison it is.
    """
    if comparison is None or contrast is None:
        return dict.fromkeys(_LEVELS, "there was no fine-tuning to compare with")
    reasons = {
        f"rec2ftp.{name}": reason for name, reason in _SHARES.items() if math.isnan(getattr(comparison.rec2ftp, name))
    }
    for key, curve, form in named_forms(comparison):
        # A level that the contrast does not measure has one reason for all its figures.
        general = _not_compared(key, contrast)
        # The figure's own key stands for its whole curve; only partly undefined curves list their layers.
        if math.isnan(form.value):
            reasons[key] = general or _reason({name: shares.mean() for name, shares in form.undefined.items()})
        else:
            for layer in torch.isnan(form.per_layer).nonzero().flatten().tolist():
                shares = {name: shares[layer] for name, shares in form.undefined.items()}
                reasons[f"{curve}[{layer}]"] = general or _reason(shares)
    return reasons


def undefined_queries(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """By dotted key of a layer, `sim_aou.per_layer[0]`, the share of queries that have no value there, and why.

    Only where some of them have one; with heads, the share of queries and heads.
    """
    entries: dict[str, dict[str, Any]] = {}
    for _, curve, form in named_forms(comparison):
        for layer, value in enumerate(form.per_layer.tolist()):
            parts = {name: shares[layer] for name, shares in form.undefined.items()}
            share = float(sum(parts.values(), torch.zeros(())))
            # A layer without any value is among `undefined`, with a reason of its own.
            if share > 0 and not math.isnan(value):
                entries[f"{curve}[{layer}]"] = {"share": round(share, 6), "reason": _reason(parts)}
    return entries


def rounding(comparison: Comparison) -> dict[str, Any]:
    """By dotted key how far rounding may move each figure that divides by the length of a difference.

    The means, over the queries that have a value, of the share of an update's length that rounding may have added.
    """
    shares: dict[str, Any] = {}
    for key, curve, form in named_forms(comparison):
        if form.rounding is not None:
            shares |= {key: float(form.rounding.nanmean()), curve: form.rounding.tolist()}
    return shares


def named_forms(comparison: Comparison) -> Iterator[tuple[str, str, Form]]:
    """Key of the figure, key of its curve over layers, and the form, of every form of a comparison."""
    for level, result in comparison._asdict().items():
        for place, (name, form) in enumerate(result._asdict().items()):
            if isinstance(form, Form):
                key, curve = (name, f"{name}_per_layer") if place else ("value", "per_layer")
                yield f"{level}.{key}", f"{level}.{curve}", form


def _not_compared(key: str, contrast: Contrast) -> str:
    """The reason of a whole level that this contrast has no use for."""
    if key.startswith("kendall.") and contrast.training_queries is None:
        return "the query vectors of fine-tuning were not kept"
    if contrast.next_query and not key.startswith("sim_aou."):
        return "only representations can be compared with another query's"
    return ""


def _reason(shares: Mapping[str, Tensor]) -> str:
    """The reasons that apply, the most frequent first."""
    # Sorted by share, so that the first named is the main one.
    applying = sorted((name for name in shares if shares[name] > 0), key=lambda name: -float(shares[name]))
    return "; or ".join(applying) or "no query had a value"
