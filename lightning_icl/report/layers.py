"""What the curves over layers show, as data: ours, baselines, controls, and published ones. Drawn elsewhere."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_icl.published import published_layers
from lightning_icl.report.check import repeated_size
from lightning_icl.report.tables import mean
from lightning_icl.results import TaskRun

Role = Literal["main", "form", "baseline", "control", "published", "seed"]
Values = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One value for each layer; None leaves a gap. With `upper`, a band between the two."""

    label: str
    role: Role
    values: Values
    upper: Values | None = None
    family: str = ""
    """Of a control its kind, which has one colour in all charts."""


TITLES = {
    "sim_aou": "SimAOU: similarity of attention-output updates",
    "sim_am": "SimAM: similarity of attention maps",
    "kendall": "Kendall rank correlation of attention to training tokens",
}
_LINES: dict[str, tuple[tuple[str, str, Role], ...]] = {
    "sim_aou": (
        ("per_layer", "SimAOU", "main"),
        ("raw_per_layer", "raw", "form"),
        ("random_per_layer", "random", "baseline"),
    ),
    "sim_am": (
        ("per_layer", "ICL and FT", "main"),
        ("difference_per_layer", "differences", "form"),
        ("zsl_per_layer", "ICL and ZSL", "baseline"),
    ),
    "kendall": (
        ("per_layer", "tokens", "main"),
        ("example_per_layer", "demonstrations", "form"),
        ("random_per_layer", "random", "baseline"),
    ),
}
# What Deutch et al. stored for each level, and the curve of ours it stands beside.
_PUBLISHED = {"sim_aou": "sim_aou", "sim_am": "sim_am_difference"}


def layer_curves(run: TaskRun, level: str) -> list[Curve]:
    """Every curve of one task at one level: ours, other forms, baselines, controls, published.

    Args:
        run: the task.
        level: `sim_aou`, `sim_am` or `kendall`.
    """
    values = run.results.get(level) or {}
    curves = [
        Curve(label=label, role=role, values=tuple(values[key]))
        for key, label, role in _LINES[level]
        if _has_values(values.get(key))
    ]
    curves += _control_curves(run.results.get("controls") or {}, level)
    if (
        level in _PUBLISHED
        and repeated_size(run) == "1.3B"
        and (known := published_layers(run.task, _PUBLISHED[level]))
    ):
        label = "published (Deutch et al.)" + (", differences" if level == "sim_am" else "")
        curves.append(Curve(label=label, role="published", values=tuple(known)))
    return curves


def seed_curves(runs: Sequence[TaskRun], level: str) -> list[Curve]:
    """The curves of one task over its seeds: means, each seed's own main curve, controls from least to most.

    Args:
        runs: the task under each seed; of one alone its own curves.
        level: `sim_aou`, `sim_am` or `kendall`.
    """
    if len(runs) == 1:
        return layer_curves(runs[0], level)
    saved = [run.results.get(level) or {} for run in runs]
    curves = []
    for key, label, role in _LINES[level]:
        members = [tuple(values[key]) for values in saved if _has_values(values.get(key))]
        if members and role == "main":
            curves += [Curve(label="each seed", role="seed", values=values) for values in members]
        if members:
            curves.append(Curve(label=label, role=role, values=_mean(members)))
    controls = {
        f"{name} {number}": {**control, "kind": _kind(name, control)}
        for number, run in enumerate(runs)
        for name, control in (run.results.get("controls") or {}).items()
    }
    return [*curves, *_control_curves(controls, level)]


def _has_values(curve: Sequence[float | None] | None) -> bool:
    """Whether there is anything to draw: a level that a control cannot have is saved as a list of null."""
    return any(value is not None for value in curve or ())


def _mean(members: Sequence[Values]) -> Values:
    """Mean of each layer, over what is there."""
    return tuple(mean(values) for values in zip(*members, strict=True))


def _kind(name: str, control: Mapping[str, Any]) -> str:
    return str(control.get("kind") or re.sub(r"[-_ .]?\d+$", "", name) or name)


def control_groups(controls: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Controls of one kind together: by their `kind`, else by their name without a closing number.

    What has a spread is the mean of other members, and left out.

    >>> list(control_groups({"order-1": {}, "order-2": {}, "untrained": {}}))
    ['order', 'untrained']
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, control in controls.items():
        if not control.get("spread"):
            groups.setdefault(_kind(name, control), []).append(control)
    return groups


def _control_curves(controls: Mapping[str, Mapping[str, Any]], level: str) -> list[Curve]:
    curves = []
    for kind, entries in control_groups(controls).items():
        lines = [(entry.get(level) or {}).get("per_layer") or () for entry in entries]
        members = [tuple(values) for values in lines if _has_values(values)]
        if len(members) > 1:
            low, high = _extent(members)
            label = f"{kind} ({len(members)} runs)"
            curves.append(Curve(label=label, role="control", values=low, upper=high, family=kind))
        elif members:
            curves.append(Curve(label=kind, role="control", values=members[0], family=kind))
    return curves


def _extent(members: Sequence[Values]) -> tuple[Values, Values]:
    """Smallest and largest of each layer, over what is there."""
    layers = [[value for value in values if value is not None] for values in zip(*members, strict=True)]
    return (
        tuple(min(values) if values else None for values in layers),
        tuple(max(values) if values else None for values in layers),
    )
