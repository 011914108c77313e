"""Several runs side by side: size of the model against what was measured."""

import math
from collections.abc import Sequence
from html import escape

from lightning_icl.report.controls import COLUMNS, figure_cells
from lightning_icl.report.grid import Grid
from lightning_icl.report.svg import ticks
from lightning_icl.report.tables import mean, value_of
from lightning_icl.results import TaskRun

_MEASURES = ("Rec2FTP", "SimAOU", "raw", "SimAM", "difference", "Kendall")


def shared_tasks(runs: Sequence[Sequence[TaskRun]]) -> list[str]:
    """Tasks that every run has, in the order of the first; all the first's where they share none."""
    names = [run.task for run in runs[0]]
    shared = [name for name in names if all(name in {run.task for run in tasks} for tasks in runs)]
    return shared


def side_grid(runs: Sequence[Sequence[TaskRun]]) -> Grid:
    """One row for each run, smallest model first: its size, and means over the tasks that all runs share."""
    shared = shared_tasks(runs)
    rows = []
    for tasks in sorted(runs, key=_size):
        counted = [run.results for run in tasks if not shared or run.task in shared]
        model = tasks[0].results["model"]
        rows.append(
            (_label(tasks, runs), f"{_size(tasks):,}" if model.get("parameters") else "–", *figure_cells(counted))
        )
    over = (
        f"means of the tasks that all share ({', '.join(shared)})"
        if shared
        else "no task is shared, so each row is the mean of its own tasks"
    )
    return Grid(
        name="side_by_side",
        title=f"Models side by side, {over}",
        header=("", "parameters", *(header for header, _ in COLUMNS)),
        rows=tuple(rows),
    )


def _size(tasks: Sequence[TaskRun]) -> int:
    return int(tasks[0].results["model"].get("parameters") or 0)


def _label(tasks: Sequence[TaskRun], runs: Sequence[Sequence[TaskRun]]) -> str:
    """The model's name, with the run's folder where two runs are of one model."""
    name = str(tasks[0].results["model"]["name"])
    twice = sum(str(other[0].results["model"]["name"]) == name for other in runs) > 1
    return f"{name} ({tasks[0].folder.parent.name})" if twice else name


def size_charts(runs: Sequence[Sequence[TaskRun]]) -> str:
    """Parameters, on a logarithmic axis, against each measure; empty where no run says its size."""
    shared, sized = shared_tasks(runs), [tasks for tasks in runs if _size(tasks)]
    charts = []
    for header, quantity in COLUMNS:
        points = []
        for tasks in sized:
            value = mean([value_of(quantity, run.results) for run in tasks if not shared or run.task in shared])
            if value is not None:
                points.append((_label(tasks, runs), _size(tasks), value))
        if header in _MEASURES and points:
            charts.append(f"<figure><figcaption>{header}</figcaption>{_scatter(points, header)}</figure>")
    return f"<div class=charts>{''.join(charts)}</div>" if charts else ""


def _scatter(points: Sequence[tuple[str, int, float]], title: str) -> str:
    width, height, left, bottom = 320, 200, 44, 30
    exponents = [math.log10(size) for _, size, _ in points]
    start, end = math.floor(min(exponents)), max(math.ceil(max(exponents)), math.floor(min(exponents)) + 1)
    marks = ticks(min(0.0, *(value for *_, value in points)), max(value for *_, value in points))
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
    for (label, _, value), place in zip(points, exponents, strict=True):
        parts.append(
            f'<circle cx="{x(place):.1f}" cy="{y(value):.1f}" r="4">'
            f"<title>{escape(label)}: {value:.3f}</title></circle>"
        )
    return "".join([*parts, "</g></svg>"])
