"""What the curves over layers show, as data: ours, baselines, controls, and published ones. Drawn elsewhere."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_icl.measures import Role as FigureRole
from lightning_icl.measures import curve_figures
from lightning_icl.published import published_layers
from lightning_icl.report.check import repeated_size
from lightning_icl.report.figures import mean
from lightning_icl.results import TaskRun

Role = FigureRole | Literal["control", "published", "seed"]
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


def layer_curves(run: TaskRun, level: str) -> list[Curve]:
    """Every curve of one task at one level: ours, other forms, baselines, controls, published.

    Args:
        run: the task.
        level: of a measure that has lines over layers.
    """
    saved = run.results.get(level) or {}
    curves = [
        Curve(label=figure.curve, role=figure.role, values=tuple(saved[figure.per_layer]))
        for figure in curve_figures(level)
        if _has_values(saved.get(figure.per_layer))
        # A row of null alone has nothing to draw, and would stand in the legend.
    ]
    return [*curves, *_control_curves(run.results.get("controls") or {}, level), *_published_curves(run, level)]


def _published_curves(run: TaskRun, level: str) -> Iterator[Curve]:
    """What Deutch et al. stored for the smaller of the paper's models."""
    # Published curves are those of the smaller model alone.
    for figure in curve_figures(level) if repeated_size(run) == "1.3B" else ():
        published = published_layers(run.task, figure.published_curve) if figure.published_curve else None
        if published:
            form = "" if figure.role == "main" else f", {figure.curve}"
            yield Curve(label=f"published (Deutch et al.){form}", role="published", values=tuple(published))


def seed_curves(runs: Sequence[TaskRun], level: str) -> list[Curve]:
    """The curves of one task over its seeds: means, each seed's own main curve, controls from least to most.

    Args:
        runs: the task under each seed; of one alone its own curves.
        level: of a measure that has lines over layers.
    """
    if len(runs) == 1:
        return layer_curves(runs[0], level)
    saved = [run.results.get(level) or {} for run in runs]
    curves = []
    for figure in curve_figures(level):
        lines = [part.get(figure.per_layer) or () for part in saved]
        members = [tuple(values) for values in lines if _has_values(values)]
        # Every seed thin behind their mean, which alone would hide how far they are apart.
        if members and figure.role == "main":
            curves += [Curve(label="each seed", role="seed", values=values) for values in members]
        if members:
            curves.append(Curve(label=figure.curve, role=figure.role, values=_mean(members)))
    # Controls of different seeds are of one kind; the number keeps their names apart.
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
    # `order-1`, `order-2` are of one kind, told by the number at the end.
    return str(control.get("kind") or re.sub(r"[-_ .]?\d+$", "", name) or name)


def control_groups(controls: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Controls of one kind together: by their `kind`, else by their name without a closing number.

    What has a spread is the mean of other members, and left out.

    >>> list(control_groups({"order-1": {}, "order-2": {}, "untrained": {}}))
    ['order', 'untrained']
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, control in controls.items():
        # A control with a spread is the mean of others, which are drawn themselves.
        if not control.get("spread"):
            groups.setdefault(_kind(name, control), []).append(control)
    return groups


def _control_curves(controls: Mapping[str, Mapping[str, Any]], level: str) -> list[Curve]:
    curves = []
    for kind, entries in control_groups(controls).items():
        lines = [(entry.get(level) or {}).get("per_layer") or () for entry in entries]
        members = [tuple(values) for values in lines if _has_values(values)]
        # Several of one kind become a band: lines would cover each other.
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
