"""What controls showed, as `results.json` holds it: the figures of the main comparison, for each control."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

import torch

from lightning_icl.comparison.assemble import plain_comparison
from lightning_icl.comparison.controls.catalogue import CONTROLS
from lightning_icl.comparison.undefined import undefined
from lightning_icl.measures import compared_levels
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.findings import Prediction, accuracy
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import VIEWS


def measured(name: str, contrasts: Sequence[Contrast], probe: ICLProbe) -> dict[str, Any]:
    """Entries of one control: one for each contrast; of several, also their mean, spread and sensitivity.

    Args:
        name: of the control.
        contrasts: its contrasts, all compared.
        probe: has validated.
    """
    title = CONTROLS[name].title
    entries = {contrast.name: _entry(title, contrast, probe) for contrast in contrasts}
    # A single contrast is its own summary.
    if len(contrasts) == 1:
        return entries
    overall: dict[str, Any] = {"title": f"{title}: mean of {len(contrasts)}", "lr": contrasts[0].learning_rate}
    overall |= {key: _mean([entry[key] for entry in entries.values()]) for key in ("accuracy", *compared_levels())}
    overall["difference"] = _difference(overall, probe)
    # Population standard deviation: these orders are all there are, not a sample of them.
    overall["spread"] = {view: pstdev(entry["accuracy"][view] for entry in entries.values()) for view in VIEWS}
    overall["sensitivity"] = {
        view: sensitivity(probe.predictions, [contrast.conditions[place].name for contrast in contrasts])
        for place, view in enumerate(VIEWS)
    }
    overall["note"] = "sensitivity " + ", ".join(f"{view} {overall['sensitivity'][view]:.3f}" for view in ("icl", "ft"))
    return {name: overall, **entries}


def _entry(title: str, contrast: Contrast, probe: ICLProbe) -> dict[str, Any]:
    names = dict(zip(VIEWS, (condition.name for condition in contrast.conditions), strict=True))
    accuracies = {view: accuracy(probe.predictions, condition) for view, condition in names.items()}
    comparison = probe.comparisons[contrast.name]
    note = contrast.note or _rate_note(contrast, probe)
    entry = {
        "title": title,
        "lr": contrast.learning_rate,
        # Between queries no answer can be right.
        "accuracy": {**accuracies, "ft": None} if contrast.next_query else accuracies,
        **plain_comparison(comparison),
        "undefined": undefined(comparison, contrast),
        **({"note": note} if note else {}),
    }
    return {**entry, "difference": _difference(entry, probe)}


def _rate_note(contrast: Contrast, probe: ICLProbe) -> str:
    """Says a learning rate that is not the main one."""
    assert probe.finetuned is not None
    rate = contrast.learning_rate
    # None where the contrast has no fine-tuning of its own.
    return "" if rate in (None, probe.finetuned.learning_rate) else f"at rate {rate:g}"


def _difference(entry: Mapping[str, Any], probe: ICLProbe) -> dict[str, float]:
    """By level, how much greater the control's figure is than that of the main comparison over the same queries."""
    main = probe.comparison
    assert main is not None
    return {level: float(entry[level]["value"]) - float(getattr(main, level).value) for level in compared_levels()}


def left_out(name: str, reason: str) -> dict[str, Any]:
    """The entry of a control that could not be made."""
    return {
        "title": CONTROLS[name].title,
        "accuracy": dict.fromkeys(VIEWS),
        **dict.fromkeys(compared_levels()),
        "note": f"left out: {reason}",
    }


def _mean(values: Sequence[Any]) -> Any:
    """Mean of figures of the same form, entry by entry, over those that are defined; NaN where none is."""
    # All entries have the same form, so the first tells what kind this level is.
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_mean(list(entries)) for entries in zip(*values, strict=True)]
    defined = [float(value) for value in values if value is not None and not math.isnan(value)]
    return fmean(defined) if defined else math.nan


def sensitivity(predictions: Sequence[Prediction], conditions: Sequence[str]) -> float:
    """How much answers depend on the order of the demonstrations, after Shen et al. (arXiv 2310.08540).

    The standard deviation (population) over the orders of an answer's probability among the query's answers, averaged
    over answers and then over queries: 0 where the order changes nothing, at most 0.5.

    Args:
        predictions: of all queries.
        conditions: names of the condition in each order.
    """
    spreads = []
    for prediction in predictions:
        orders = [probabilities(prediction.scores[name]) for name in conditions]
        spreads.append(fmean(pstdev(answer) for answer in zip(*orders, strict=True)))
    return fmean(spreads) if spreads else math.nan


def probabilities(scores: Sequence[float]) -> list[float]:
    """Softmax over the answers of a query."""
    return torch.tensor(scores, dtype=torch.float64).softmax(-1).tolist()
