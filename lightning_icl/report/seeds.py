"""Runs that differ in nothing but the seed: mean and standard error over seeds."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lightning_icl.measures import Figure
from lightning_icl.report.figures import mean, shown
from lightning_icl.report.grid import PUBLISHED, Grid
from lightning_icl.report.tables import Row, digits, label, model_name, summary_rows
from lightning_icl.results import TaskRun

Run = Sequence[TaskRun]
"""The tasks of one run."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over seeds."""

    mean: float
    standard_error: float | None
    """Sample standard deviation over the root of the number of seeds; None for one."""
    count: int
    """Seeds in which the figure is defined."""


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and standard error of what is there; None for nothing.

    >>> spread([1.0, None, 2.0])
    Spread(mean=1.5, standard_error=0.5, count=2)
    """
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    # Sample standard deviation: seeds are a sample of all seeds.
    error = stdev(defined) / math.sqrt(len(defined)) if len(defined) > 1 else None
    return Spread(mean=fmean(defined), standard_error=error, count=len(defined))


def spread_shown(figure: Figure, values: Sequence[float | None]) -> str:
    """A figure over seeds as a cell: its mean, below it the standard error and the seeds where not all have it."""
    over_seeds = spread(values)
    if over_seeds is None:
        return "–"
    lines = [shown(figure, over_seeds.mean)]
    if over_seeds.standard_error is not None:
        lines.append(f"± {shown(figure, over_seeds.standard_error)}")
    if over_seeds.count < len(values):
        lines.append(f"{over_seeds.count} of {len(values)} seeds")
    return "\n".join(lines)


# What a seed's choice of demonstrations decides, so that it tells no two settings apart.
_DRAWN = ("joined_answers", "repeated_queries")
# Fingerprints that all seeds share.
_MADE_FROM = ("rows", "task", "weights")


def seed_groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in nothing but the seed together, in the order given; a seed stands once in a group.

    Runs are alike where model, tasks, prompt, shots asked for, learning rate and number of queries are. Rates that
    each run chose on held-out rows are alike whatever they are: the choice is a part of what a seed decides.
    """
    groups: list[tuple[str, list[set[tuple[str, object]]], list[Run]]] = []
    for run in runs:
        # A seed belongs to a group only once, so that runs repeated by hand are not averaged.
        key, seeds = _settings(run), {(task.task, _seed(task)) for task in run}
        for settings, taken, members in groups:
            if settings == key and not any(seeds & other for other in taken):
                taken.append(seeds)
                members.append(run)
                break
        else:
            groups.append((key, [seeds], [run]))
    return [members for *_, members in groups]


def _seed(task: TaskRun) -> object:
    return (task.results.get("demonstrations") or {}).get("seed")


def _settings(run: Run) -> str:
    """All that a result depends on but the seed."""
    tasks = [
        {
            **{name: task.results.get(name) for name in ("model", "queries")},
            "task": {name: value for name, value in (task.results.get("task") or {}).items() if name not in _DRAWN},
            "made_from": {name: (task.results.get("fingerprints") or {}).get(name) for name in _MADE_FROM},
            "shots": (task.results.get("demonstrations") or {}).get("requested"),
            "lr": _rate(task.results.get("finetune") or {}),
        }
        # Sorted, since two runs may have been asked for the same tasks in another order.
        for task in sorted(run, key=lambda task: task.task)
    ]
    # As text, since dictionaries cannot be compared for order in a list.
    return json.dumps(tasks, sort_keys=True)


def _rate(finetune: Mapping[str, object]) -> object:
    """The rate that was asked for; one word for any that was chosen on held-out rows."""
    return "auto" if finetune.get("choice") else finetune.get("lr")


def seeds_of(group: Sequence[Run]) -> str:
    """The seeds as text: those of the first task.

    >>> from pathlib import Path
    >>> one, two = (TaskRun(folder=Path(), results={"demonstrations": {"seed": seed}}) for seed in (1, 2))
    >>> seeds_of([[one], [two]])
    '2 seeds (1, 2)'
    """
    names = ", ".join(str(_seed(run[0])) for run in group)
    return f"{len(group)} seeds ({names})"


def same_task(group: Sequence[Run]) -> list[list[TaskRun]]:
    """The runs of each task, one for each seed, in the first run's order of tasks."""
    return [[task for run in group for task in run if task.task == first.task] for first in group[0]]


def seeds_grid(group: Sequence[Run], tables: Sequence[str] | None = None, name: str = "seeds") -> Grid:
    """Tasks across, one row for each quantity: mean and standard error over seeds; the mean of tasks within each seed.

    Args:
        group: runs that differ in the seed alone.
        tables: which tables; None for all.
        name: of the grid's files.
    """
    order = [task.task for task in group[0]]
    every = [task for run in group for task in run]
    # In the first run's order, so that rows of different runs are of the same task.
    ordered = [sorted(run, key=lambda task: order.index(task.task)) for run in group]
    summaries = [summary_rows(run, tables, every) for run in ordered]
    columns = [*order, "mean"] if len(order) > 1 else order
    rows: list[tuple[str, ...]] = []
    lines: list[tuple[str, ...]] = []
    sections, model = [], model_name(group[0])
    for number, same in enumerate(zip(*summaries, strict=True)):
        figure = same[0].figure
        # Tables of the same run differ by measure; a new one begins a section.
        if number and figure.measure != summaries[0][number - 1].figure.measure:
            sections.append(len(rows))
        over_seeds = list(_columns(same))[: len(columns)]
        rows.append((label(figure), *(spread_shown(figure, values) for values in over_seeds)))
        if (published := same[0].published) is not None:
            means = [*published, mean(published)][: len(columns)]
            rows.append((f"  {PUBLISHED}", *(shown(figure, value) for value in means)))
        lines += (
            (model, task, figure.path, *spread_digits(values)) for task, values in zip(columns, over_seeds, strict=True)
        )
    return Grid(
        name=name,
        title=f"{model}: mean ± standard error over {seeds_of(group)}",
        header=("", *columns),
        rows=tuple(rows),
        notes=("the mean of the tasks is taken within each seed first",) if len(order) > 1 else (),
        sections=tuple(sections),
        turns=True,
        numbers=(("model", "task", "quantity", "mean", "standard_error", "seeds"), *lines),
    )


def _columns(rows: Sequence[Row]) -> Iterator[list[float | None]]:
    """For each task, and for their mean, the value of each seed."""
    for number in range(len(rows[0].values)):
        yield [row.values[number] for row in rows]
    # The mean of the tasks is taken within a seed, since tasks are the same in all of them.
    yield [mean(row.values) for row in rows]


def spread_digits(values: Sequence[float | None]) -> tuple[str, str, str]:
    """Mean, standard error and number of seeds for programs to read; empty where there is none."""
    over_seeds = spread(values)
    if over_seeds is None:
        return "", "", "0"
    return digits(over_seeds.mean), digits(over_seeds.standard_error), str(over_seeds.count)
