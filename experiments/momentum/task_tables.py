"""Accuracy by task of every kind of attention, zero-shot and in context."""

import statistics

from rich.table import Table

from experiments.momentum.summary import Measured, accuracies, titled

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
    views = [accuracies(measured, key, view) for view in ("zsl", "icl")]
    rows = list(views[0])
    lines = []
    for name, of_seed in measured.items():
        means = [[statistics.fmean(view[row](found) for found in of_seed.values()) for view in views] for row in rows]
        lines.append([name, str(len(of_seed)), *(" → ".join(f"{mean:.1f}" for mean in pair) for pair in means)])
    return titled(_TITLES[key], ["attention", "seeds", *rows], lines)
