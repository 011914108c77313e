"""The rows of tidy frames, one a figure, from what runs have saved; shares lie between 0 and 1, None is undefined."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_icl.measures import FIGURES, table_figures
from lightning_icl.results import TaskRun

_TEXT, _NUMBER, _LAYER = "object", "float64", "Int64"
_MEASURED = {"measure": _TEXT, "figure": _TEXT}
_INTERVAL = {"value": _NUMBER, "low": _NUMBER, "high": _NUMBER}

COMPARISON = {"model": _TEXT, "task": _TEXT, "control": _TEXT, **_MEASURED, "layer": _LAYER, **_INTERVAL}
SWEEP = {
    "model": _TEXT, "task": _TEXT, "shots": "int64", "seed": "int64", "lr": _NUMBER, "selected": "bool", **_MEASURED,
    "value": _NUMBER,
}  # fmt: skip
DUAL_FORM = {"model": _TEXT, "task": _TEXT, "figure": _TEXT, "layer": _LAYER, "head": _LAYER, "value": _NUMBER}
WEIGHT_UPDATE = {
    "model": _TEXT, "task": _TEXT, "scope": _TEXT, "condition": _TEXT, "figure": _TEXT, "layer": _LAYER, **_INTERVAL,
}  # fmt: skip
"""Columns of each kind of frame, with their types."""

Rows = Iterator[dict[str, Any]]


def comparison(run: TaskRun, layers: bool) -> Rows:
    """The figures of a task, then those of each of its controls."""
    results, controls = run.results, run.results.get("controls") or {}
    # The main comparison under the empty name, so that it needs no case of its own.
    intervals = {"": results.get("intervals") or {}, **(results.get("contrast_intervals") or {})}
    for control, content in {"": results, **controls}.items():
        about = {"model": results["model"]["name"], "task": run.task, "control": control}
        for figure in FIGURES:
            level = content.get(figure.measure.level) or {}
            if figure.key not in level:
                continue
            low, high = (intervals.get(control) or {}).get(figure.path) or (None, None)
            named = {**about, "measure": figure.measure.level, "figure": figure.key}
            yield {**named, "value": level[figure.key], "low": low, "high": high}
            for number, value in enumerate(level.get(figure.per_layer) or [] if layers else []):
                yield {**named, "layer": number, "value": value}


def sweep(runs: Sequence[Mapping[str, Any]]) -> Rows:
    """The figures of each run, and the accuracy by which it could be chosen; none of one that diverged."""
    about = ("model", "task", "shots", "seed", "lr", "selected")
    # A figure that no run has would be a column of nothing.
    measured = [figure for figure in table_figures() if any(run[figure.name] is not None for run in runs)]
    for run in runs:
        setting = {name: run[name] for name in about}
        for figure in measured if run["diverged"] is None else ():
            yield {**setting, "measure": figure.measure.level, "figure": figure.key, "value": run[figure.name]}
        if run["heldout_accuracy"] is not None:
            yield {**setting, "measure": "accuracy", "figure": "ft_heldout", "value": run["heldout_accuracy"]}


def dual_form(content: Mapping[str, Any]) -> Rows:
    """The figures of each head, and those of a layer that has no heads."""
    about = {"model": content["model"]["name"], "task": content["task"]["name"]}
    for figure, by_layer in content["per_head"].items():
        for layer, values in zip(content["layers"], by_layer, strict=True):
            for head, value in enumerate(values):
                yield {**about, "figure": figure, "layer": layer, "head": head, "value": value}
    for figure, values in content["per_layer"].items():
        # Layer means of figures that have heads are left out: they can be made from the rows.
        for layer, value in zip(content["layers"], values, strict=True) if figure not in content["per_head"] else ():
            yield {**about, "figure": figure, "layer": layer, "value": value}


def weight_update(content: Mapping[str, Any], layers: bool) -> Rows:
    """The figures of each condition."""
    about = {"model": content["model"]["name"], "task": content["task"]["name"], "scope": content["scope"]}
    for condition, figures in content["conditions"].items():
        named = {**about, "condition": condition}
        for figure, value in figures.items():
            low, high = content["intervals"][condition].get(figure) or (None, None)
            yield {**named, "figure": figure, "value": value, "low": low, "high": high}
        for figure, values in content["per_layer"][condition].items() if layers else ():
            for number, value in enumerate(values):
                yield {**named, "figure": figure, "layer": number, "value": value}
