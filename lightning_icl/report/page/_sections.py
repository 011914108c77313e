"""What the page's parts show, as data for its templates: curves, one task's pictures, how to run it again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_icl.measures import compared, head_figures, layered
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.forest import forest_rows
from lightning_icl.report.layers import Curve, seed_curves
from lightning_icl.report.outcomes import OUTCOMES, right_count
from lightning_icl.report.page._charts import (
    ForestChart,
    HeatMap,
    LineChart,
    forest_chart,
    heat_map,
    line_chart,
    rate_chart,
)
from lightning_icl.report.paired import paired_grid
from lightning_icl.report.rates import rates_grid
from lightning_icl.report.scales import extent
from lightning_icl.report.seeds import Run, same_task
from lightning_icl.report.strokes import Strokes, legend_of
from lightning_icl.report.sweep import Row, over_rates, rate_figures
from lightning_icl.report.verdict import main_figure
from lightning_icl.results import CONFIG, TaskRun

Part = dict[str, Any]
"""What a template is given."""


def level_parts(group: Sequence[Run]) -> list[Part]:
    """Every measure over layers, one chart for each task on a shared scale.

    Args:
        group: one run, or runs that differ in the seed alone.
    """
    parts, strokes = [], Strokes(run for runs in group for run in runs)
    for measure in layered():
        drawn = [(same[0].task, curves) for same in same_task(group) if (curves := seed_curves(same, measure.level))]
        if not drawn:
            continue
        # One scale for all tasks of a measure, so that charts can be compared at a glance.
        span = extent(curve for _, curves in drawn for curve in curves)
        charts = [
            (task, line_chart(curves, f"{measure.title}, {task}", strokes=strokes, span=span)) for task, curves in drawn
        ]
        entries = [_entry(curve, strokes) for curve in legend_of(curves for _, curves in drawn)]
        parts.append({"title": measure.title, "reading": measure.reading, "legend": entries, "charts": charts})
    return parts


def rate_part(name: str, rows: Sequence[Row]) -> Part:
    """One setting of a sweep: its figures over learning rates.

    Args:
        name: of the setting.
        rows: its runs.
    """
    drawn = [over for figure in rate_figures() if (over := over_rates(figure, rows)).seeds]
    charts = [(over.figure.column, rate_chart(over)) for over in drawn]
    # Charts share their lines' names; the last one of each name stands for all.
    lines = [line for _, chart in charts for line in chart.lines]
    entries = [
        {"label": label, "name": line.name, "band": False, "control": False, "points": not line.path}
        for label, line in {line.label: line for line in lines}.items()
    ]
    reading = "Every run is a point, the line their mean over seeds; the upright line is the rate chosen."
    return {"title": name, "reading": reading, "legend": entries, "charts": charts}


def _entry(curve: Curve, strokes: Strokes) -> Part:
    """A name in the legend."""
    named = {"label": curve.label, "name": strokes.name(curve)}
    return {**named, "band": curve.upper is not None, "control": curve.role == "control", "points": False}


def forest_parts(runs: Sequence[TaskRun]) -> list[ForestChart]:
    """The run beside its controls, one chart for each figure that compares ICL with FT, the main one first."""
    main = main_figure()
    figures = [main, *(figure for figure in compared() if figure != main)]
    drawn = [(figure, forest_rows(figure, runs)) for figure in figures]
    # A lone row is the run itself, with no control beside it.
    return [forest_chart(figure, rows) for figure, rows in drawn if len(rows) > 1]


def task_part(run: TaskRun) -> Part:
    """One task: who was right, fine-tuning, heads, demonstrations, controls."""
    finetune = run.results.get("finetune") or {}
    rate = finetune.get("lr")
    return {
        "name": run.task,
        "template": str(run.results["task"].get("template", "")),
        "right": list(_right(run.results)),
        "rate": None if rate is None else f"{rate:g}",
        "finetuning": list(_finetuning(finetune)),
        "rates": rates_grid(run),
        "heads": list(_heads(run.results)),
        "examples": _examples(run.results),
        "tables": [grid for grid in (controls_grid([run]), paired_grid([run])) if grid],
    }


def _right(results: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Rows of the table of who was right: word, title and number of each outcome."""
    table = (results.get("rec2ftp") or {}).get("right_table") or []
    for zsl in (False, True) if table else ():
        cells = [(zsl, icl, ft) for icl in (True, False) for ft in (True, False)]
        yield (
            f"ZSL {'right' if zsl else 'wrong'}",
            [(*OUTCOMES[cell], f"{right_count(table, cell):,}") for cell in cells],
        )


def _finetuning(finetune: Mapping[str, Any]) -> Iterator[LineChart]:
    for key, title, label, first in (
        ("loss", "Loss of each step", "step", 1),
        ("update_norm_per_layer", "Norm of the update", "layer", 0),
    ):
        # Runs that only validated have no losses to draw.
        if finetune.get(key):
            curve = Curve(label=title, role="main", values=tuple(finetune[key]))
            yield line_chart([curve], title, x_label=label, first=first)


def _heads(results: Mapping[str, Any]) -> Iterator[HeatMap]:
    for figure in head_figures():
        if values := (results.get(figure.measure.level) or {}).get(figure.per_head):
            yield heat_map(values, f"{figure.measure.name}, {figure.curve}")


def _examples(results: Mapping[str, Any]) -> Part:
    """Which demonstrations were attended to, and their texts."""
    kendall = results.get("kendall") or {}
    texts = [str(text) for text in (results.get("demonstrations") or {}).get("texts") or []]
    maps, shares = [], []
    for key, title in (("example_icl", "ICL attention"), ("example_ft", "FT inner products")):
        if kendall.get(key):
            scaled = [_scaled(layer) for layer in kendall[key]]
            maps.append(heat_map(scaled, title, columns="demonstration"))
            shares.append([sum(values) / len(values) for values in zip(*scaled, strict=True)])
    # Files of an earlier version have no texts; then the maps say how many there were.
    count = len(texts) or len(shares[0]) if shares else len(texts)
    rows = [
        ([share[number] for share in shares if number < len(share)], texts[number] if number < len(texts) else "")
        for number in range(count)
    ]
    return {"maps": maps, "rows": rows}


def _scaled(values: Sequence[float | None]) -> tuple[float, ...]:
    defined = [value for value in values if value is not None] or [0.0]
    # One span for all demonstrations of a layer: what counts is which is attended to most.
    low, span = min(defined), (max(defined) - min(defined)) or 1.0
    return tuple(0.0 if value is None else (value - low) / span for value in values)


def again_part(runs: Sequence[TaskRun]) -> Part:
    """The command that makes each task again, its configuration, and the versions it ran with."""
    commands = []
    for run in runs:
        path = run.folder / CONFIG
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            # A configuration with an overlay is one of `validate`.
            commands.append({"task": run.task, "name": "validate" if "\noverlay:" in text else "compare", "text": text})
    versions = (runs[0].results.get("versions") or {}).items()
    return {"commands": commands, "versions": list(versions)} if commands or versions else {}
