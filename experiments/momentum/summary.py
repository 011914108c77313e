"""Means, standard errors and paired differences over seeds, and the tables made of them."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rich.table import Table

from experiments.momentum.settings import ExperimentSettings
from lightning_icl.published import momentum_tables

Measured = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""What was measured, by variant and seed."""
Figure = Callable[[Mapping[str, Any]], float]
"""One number out of what was measured on one model."""


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; NaN for the error of a single value.

    >>> mean_and_error([1.0, 2.0, 3.0])
    (2.0, 0.5773502691896258)
    """
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def paired_difference(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float]:
    """Mean and standard error of `other − one` over the seeds that both have."""
    return mean_and_error([other[seed] - one[seed] for seed in one if seed in other])


def _perplexity(length: str, found: Mapping[str, Any]) -> float:
    """Of held-out text at a length."""
    return float(found["perplexity"][length])


def _mean_accuracy(tasks: Sequence[str], key: str, view: str, found: Mapping[str, Any]) -> float:
    """Over tasks, in %."""
    return statistics.fmean(100 * float(found[key][task][view]) for task in tasks)


def perplexities(settings: ExperimentSettings) -> dict[str, Figure]:
    """Rows of the perplexity table: training text at the longest length, held-out text at each."""
    longest = max(settings.lengths)
    rows: dict[str, Figure] = {f"train {longest}": lambda found: found["train_perplexity"]}
    for length in settings.lengths:
        rows[str(length)] = partial(_perplexity, str(length))
    return rows


def accuracies(measured: Measured, key: str = "accuracy", view: str = "icl") -> dict[str, Figure]:
    """Rows of an accuracy table, in %: each task, and their mean.

    Args:
        measured: by variant and seed.
        key: `accuracy`, or `further_accuracy` for the tasks that are not compared by.
        view: `icl`, or `zsl` for zero-shot.
    """
    tasks = list(next(iter(measured["vanilla"].values()))[key])
    rows = {task: [task] for task in tasks} | {"mean": tasks}
    return {row: partial(_mean_accuracy, of_row, key, view) for row, of_row in rows.items()}


def published(row: str, kind: str) -> float | None:
    """The paper's value of a row; None where it has none."""
    tables = momentum_tables()
    if row == "mean":
        return tables["icl_accuracy_average_of_six"][kind]
    key = row.replace("train ", "train")
    return tables["perplexity"][kind].get(key, tables["icl_accuracy"][kind].get(key))


def comparison(
    title: str, rows: Mapping[str, Figure], measured: Measured, momentum: str, paper: bool
) -> tuple[Table, list[list[str]]]:
    """Plain against momentum, beside the paper's figures.

    Args:
        title: of the table.
        rows: what to show.
        measured: by variant and seed.
        momentum: name of the momentum variant.
        paper: whether the paper's mean is over these very rows.
    """
    header = ["", "paper vanilla", "paper momentum", "vanilla", "momentum", "difference"]
    lines = []
    for row, figure in rows.items():
        values = {
            name: {seed: figure(found) for seed, found in measured[name].items()} for name in ("vanilla", momentum)
        }
        known = [published(row, kind) if paper or row != "mean" else None for kind in ("vanilla", "momentum")]
        lines.append(
            [
                row,
                *("–" if value is None else f"{value:g}" for value in known),
                *(_with_error(*mean_and_error(list(values[name].values()))) for name in ("vanilla", momentum)),
                _with_error(*paired_difference(values["vanilla"], values[momentum]), sign="+"),
            ]
        )
    return titled(title, header, lines)


def sweep(settings: ExperimentSettings, measured: Measured) -> tuple[Table, list[list[str]]]:
    """Every variant on the seeds of the sweep: perplexity at the longest length, and mean in-context accuracy."""
    longest = max(settings.lengths)
    figures = {f"perplexity {longest}": perplexities(settings)[str(longest)], "ICL mean": accuracies(measured)["mean"]}
    lines = []
    for variant in settings.variants:
        found = {seed: measured[variant.name][seed] for seed in variant.seeds if seed in settings.sweep_seeds}
        if not found:
            continue
        cells = [
            _with_error(*mean_and_error([figure(of_seed) for of_seed in found.values()])) for figure in figures.values()
        ]
        note = ", ".join(filter(None, (_range(found, "eta", "η"), _range(found, "gate", "gate"))))
        lines.append([variant.name, *cells, note])
    return titled(
        f"Every kind of attention ({of_seeds(settings.sweep_seeds)})", ["attention", *figures, "after training"], lines
    )


def of_seeds(seeds: Sequence[int]) -> str:
    """
    >>> of_seeds([1]), of_seeds([1, 2])
    ('seed 1', 'seeds 1, 2')
    """
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _range(found: Mapping[int, Mapping[str, Any]], name: str, shown: str) -> str:
    """The least and the greatest of what heads have learnt, in words; empty where they learn no such thing."""
    values = [value for of_seed in found.values() for layer in of_seed[name] or [] for value in layer]
    return f"{shown} {min(values):.3f} to {max(values):.3f}" if values else ""


def titled(title: str, header: list[str], lines: list[list[str]]) -> tuple[Table, list[list[str]]]:
    """A table for the terminal, and its rows, header first."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 else "right")
    for line in lines:
        table.add_row(*line)
    return table, [header, *lines]


def markdown(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    rows = [header, ["---"] * len(header), *lines]
    return f"**{title}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _with_error(mean: float, error: float, sign: str = "") -> str:
    return f"{mean:{sign}.2f}" if math.isnan(error) else f"{mean:{sign}.2f} ± {error:.2f}"
