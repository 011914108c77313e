"""Accuracy by task of every kind of attention, zero-shot and in context."""

import statistics
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from experiments.momentum.summary import Measured, titled

_TITLES = {
    "accuracy": "Accuracy (%), zero-shot → in context",
    "further_accuracy": "Accuracy on further tasks (%), zero-shot → in context",
}


def accuracy_tables(measured: Measured) -> list[tuple[Table, list[list[str]]]]:
    """A table of the tasks that are compared by, and one of further tasks where there are any.

    Args:
        measured: by kind of attention and seed; a cell is a mean over seeds.
    """
    return [_table(measured, key) for key in _TITLES if next(iter(measured["vanilla"].values()))[key]]


def _table(measured: Measured, key: str) -> tuple[Table, list[list[str]]]:
    tasks = list(next(iter(measured["vanilla"].values()))[key])
    lines = []
    for name, of_seed in measured.items():
        means = [[_mean(found[key], view, tasks) for found in of_seed.values()] for view in ("zsl", "icl")]
        cells = [
            _cell([[100 * found[key][task][view] for found in of_seed.values()] for view in ("zsl", "icl")])
            for task in tasks
        ]
        lines.append([name, str(len(of_seed)), *cells, _cell(means)])
    return titled(_TITLES[key], ["attention", "seeds", *tasks, "mean"], lines)


def _mean(of_task: Mapping[str, Any], view: str, tasks: list[str]) -> float:
    return statistics.fmean(100 * of_task[task][view] for task in tasks)


def _cell(views: list[list[float]]) -> str:
    return " → ".join(f"{statistics.fmean(values):.1f}" for values in views)
