"""The controls of saved runs as one table for each task: the main comparison above, a row for each control below."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lightning_icl.results import TaskRun

COLUMNS = (
    ("ICL", ("accuracy", "icl"), True),
    ("FT", ("accuracy", "ft"), True),
    ("SimAOU", ("sim_aou", "value"), False),
    ("raw", ("sim_aou", "raw"), False),
    ("SimAM diff.", ("sim_am", "difference"), False),
    ("Kendall", ("kendall", "value"), False),
)


def controls_table(run: TaskRun) -> Table | None:
    """The controls of one task; None where it has none.

    Args:
        run: its results, with `controls` as `results.json` holds them.
    """
    controls = run.results.get("controls")
    if not controls:
        return None
    table = Table(title=f"{run.task}: controls", title_justify="left")
    table.add_column("")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    table.add_row("the comparison itself", *_cells(run.results), end_section=True)
    for name, control in controls.items():
        table.add_row(name, *_cells(control))
    return table


def control_notes(run: TaskRun) -> list[str]:
    """What is to be said of single controls, such as why one was left out."""
    controls = run.results.get("controls") or {}
    return [f"{run.task}, {name}: {control['note']}" for name, control in controls.items() if control.get("note")]


def _cells(figures: Mapping[str, Any]) -> list[str]:
    values = [((figures.get(level) or {}).get(key), percent) for _, (level, key), percent in COLUMNS]
    return ["–" if value is None else f"{100 * value:.1f}" if percent else f"{value:.3f}" for value, percent in values]
