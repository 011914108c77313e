"""The controls of a run beside the run itself: one row for each, the same figures for all."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_icl.report.grid import Grid
from lightning_icl.report.tables import QUANTITIES, Quantity, mean, shown, value_of
from lightning_icl.results import TaskRun

# What the paper claims of ICL and FT, in the forms that can be told apart from a null.
COLUMNS: tuple[tuple[str, Quantity], ...] = tuple(
    (header, next(quantity for quantity in QUANTITIES if quantity.key == key))
    for header, key in (
        ("ZSL acc.", ("accuracy", "zsl")),
        ("FT acc.", ("accuracy", "ft")),
        ("ICL acc.", ("accuracy", "icl")),
        ("Rec2FTP", ("rec2ftp", "value")),
        ("SimAOU", ("sim_aou", "value")),
        ("raw", ("sim_aou", "raw")),
        ("SimAM", ("sim_am", "value")),
        ("difference", ("sim_am", "difference")),
        ("Kendall", ("kendall", "value")),
    )
)


def figures(results: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The columns' figures, each the mean over the results that have it."""
    return [mean([value_of(quantity, result) for result in results]) for _, quantity in COLUMNS]


def figure_cells(results: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The same as text."""
    return tuple(shown(quantity, value) for (_, quantity), value in zip(COLUMNS, figures(results), strict=True))


def mean_of(runs: Sequence[TaskRun]) -> str:
    """What a title adds where cells are means over several tasks."""
    return "" if len(runs) == 1 else f", means of {len(runs)} tasks"


def fewer_tasks(there: int, runs: Sequence[TaskRun]) -> str:
    """What a row or cell adds where not every task has it."""
    return f" ({there} of {len(runs)} tasks)" if there < len(runs) else ""


def controls_grid(runs: Sequence[TaskRun]) -> Grid | None:
    """The run and its controls, means over the tasks that have each; None where no task has a control.

    A control counts only where the run has it, so a row whose tasks are fewer says how many they are.
    """
    titles = {
        name: str(control.get("title") or name)
        for run in runs
        for name, control in (run.results.get("controls") or {}).items()
    }
    if not titles:
        return None
    rows = [("this run", *figure_cells([run.results for run in runs]))]
    notes: dict[str, list[str]] = {}
    for name, title in titles.items():
        found = {run.task: control for run in runs if (control := (run.results.get("controls") or {}).get(name))}
        there = list(found.values())
        rows.append(
            (f"{name}{fewer_tasks(len(there), runs)}" + (f"\n{title}" if title != name else ""), *figure_cells(there))
        )
        for task, control in found.items():
            if control.get("note"):
                notes.setdefault(f"{name}: {control['note']}".rstrip("."), []).append(task)
    return Grid(
        name="controls",
        title=f"The same figures under each control{mean_of(runs)}",
        header=("", *(header for header, _ in COLUMNS)),
        rows=tuple(rows),
        notes=tuple(
            note if len(tasks) == len(runs) else f"{note} ({', '.join(tasks)})" for note, tasks in notes.items()
        ),
    )
