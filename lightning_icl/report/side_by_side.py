"""Several models side by side, each a mean over seeds where it ran with several: size against what was measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from lightning_icl.report.controls import COLUMNS, figures
from lightning_icl.report.grid import Grid
from lightning_icl.report.page.svg import ticks
from lightning_icl.report.seeds import Run, Spread, digits, spread, spread_shown
from lightning_icl.results import TaskRun

_MEASURES = ("Rec2FTP", "SimAOU", "raw", "SimAM", "difference", "Kendall")


@dataclass(frozen=True, kw_only=True)
class SizePoint:
    """One model in a chart of sizes."""

    label: str
    parameters: int
    spread: Spread


def shared_tasks(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Tasks that every run has, in the order of the first; none where they share none."""
    runs = [run for group in groups for run in group]
    return [
        name for name in (task.task for task in runs[0]) if all(name in {task.task for task in run} for run in runs)
    ]


def by_size(groups: Sequence[Sequence[Run]]) -> list[Sequence[Run]]:
    """Smallest model first."""
    return sorted(groups, key=lambda group: _size(group[0]))


def side_grid(groups: Sequence[Sequence[Run]]) -> Grid:
    """One row for each model, smallest first: its size, and means over the tasks that all share.

    Args:
        groups: runs of one model and one setting, which differ in the seed alone.
    """
    shared = shared_tasks(groups)
    seeded = any(len(group) > 1 for group in groups)
    header = ("", "parameters", *(["seeds"] if seeded else []), *(header for header, _ in COLUMNS))
    rows: list[tuple[str, ...]] = []
    lines: list[tuple[str, ...]] = []
    for group in by_size(groups):
        label, size = _label(group, groups), f"{_size(group[0]):,}" if _size(group[0]) else "–"
        columns = _columns(group, shared)
        cells = (spread_shown(quantity, values) for (_, quantity), values in zip(COLUMNS, columns, strict=True))
        rows.append((label, size, *([str(len(group))] if seeded else []), *cells))
        for (_, quantity), values in zip(COLUMNS, columns, strict=True):
            lines.append((label, str(_size(group[0]) or ""), ".".join(quantity.key), *digits(spread(values))))
    over = (
        f"means of the tasks that all share ({', '.join(shared)})"
        if shared
        else "no task is shared, so each row is the mean of its own tasks"
    )
    return Grid(
        name="side_by_side",
        title=f"Models side by side, {over}{', ± standard error over seeds' if seeded else ''}",
        header=header,
        rows=tuple(rows),
        numbers=(("model", "parameters", "quantity", "mean", "standard_error", "seeds"), *lines) if seeded else (),
    )


def _columns(group: Sequence[Run], shared: Sequence[str]) -> list[list[float | None]]:
    """For each of `COLUMNS` the value of each seed, means over tasks."""
    counted = [[task.results for task in run if not shared or task.task in shared] for run in group]
    return [list(values) for values in zip(*map(figures, counted), strict=True)]


def _size(run: Run) -> int:
    return int(run[0].results["model"].get("parameters") or 0)


def _label(group: Sequence[Run], groups: Sequence[Sequence[Run]]) -> str:
    """The model's name, with its run's folder where two rows are of one model."""
    name = str(group[0][0].results["model"]["name"])
    twice = sum(str(other[0][0].results["model"]["name"]) == name for other in groups) > 1
    return f"{name} ({run_name(group[0])})" if twice else name


def run_name(run: Sequence[TaskRun]) -> str:
    """Name of the run's folder."""
    return run[0].folder.resolve().parent.name


def size_points(groups: Sequence[Sequence[Run]]) -> dict[str, list[SizePoint]]:
    """For each measure, every model that says its size and has a value."""
    shared, measures = shared_tasks(groups), {}
    for number, (header, _) in enumerate(COLUMNS):
        found = [
            SizePoint(label=_label(group, groups), parameters=_size(group[0]), spread=known)
            for group in by_size(groups)
            if _size(group[0]) and (known := spread(_columns(group, shared)[number]))
        ]
        if header in _MEASURES and found:
            measures[header] = found
    return measures


def size_charts(groups: Sequence[Sequence[Run]]) -> str:
    """Parameters, on a logarithmic axis, against each measure; empty where no run says its size."""
    charts = [
        f"<figure><figcaption>{header}</figcaption>{_scatter(points, header)}</figure>"
        for header, points in size_points(groups).items()
    ]
    return f"<div class=charts>{''.join(charts)}</div>" if charts else ""


def _scatter(points: Sequence[SizePoint], title: str) -> str:
    width, height, left, bottom = 320, 200, 44, 30
    exponents = [math.log10(point.parameters) for point in points]
    ends = [point.spread.mean + sign * (point.spread.standard_error or 0.0) for point in points for sign in (-1, 1)]
    start, end = math.floor(min(exponents)), max(math.ceil(max(exponents)), math.floor(min(exponents)) + 1)
    marks = ticks(min(0.0, *ends), max(0.0, *ends))
    low, high = marks[0], marks[-1] if marks[-1] > marks[0] else marks[0] + 1

    def y(value: float) -> float:
        return 8 + (height - 8 - bottom) * (high - value) / (high - low)

    def x(exponent: float) -> float:
        return left + (width - left - 12) * (exponent - start) / (end - start)

    parts = [
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{1.25 * width}px" role="img" '
        f'aria-label="{escape(title)}">'
    ]
    for mark in marks:
        parts.append(f'<path class="grid" d="M{left} {y(mark):.1f}H{width - 12}"/>')
        parts.append(f'<text class="tick" x="{left - 5}" y="{y(mark) + 3.5:.1f}" text-anchor="end">{mark:g}</text>')
    for exponent in range(start, end + 1):
        text = {6: "1M", 7: "10M", 8: "100M", 9: "1B", 10: "10B", 11: "100B"}.get(exponent, f"1e{exponent}")
        parts.append(f'<text class="tick" x="{x(exponent):.1f}" y="{height - 16}" text-anchor="middle">{text}</text>')
    parts.append(
        f'<text class="axis" x="{width / 2}" y="{height - 3}" text-anchor="middle">parameters</text>'
        '<g class="curve main">'
    )
    for point, place in zip(points, exponents, strict=True):
        value, error = point.spread.mean, point.spread.standard_error
        text = f"{escape(point.label)}: {value:.3f}"
        if error:
            parts.append(f'<path d="M{x(place):.1f} {y(value - error):.1f}V{y(value + error):.1f}"/>')
            text += f" ± {error:.3f} over {point.spread.count} seeds"
        parts.append(f'<circle cx="{x(place):.1f}" cy="{y(value):.1f}" r="4"><title>{text}</title></circle>')
    return "".join([*parts, "</g></svg>"])
