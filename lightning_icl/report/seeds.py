"""Runs that differ in nothing but the seed: mean and standard error over seeds."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lightning_icl.report.grid import Grid
from lightning_icl.report.tables import Quantity, Row, shown, summarise
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
    there = [value for value in values if value is not None]
    if not there:
        return None
    error = stdev(there) / math.sqrt(len(there)) if len(there) > 1 else None
    return Spread(mean=fmean(there), standard_error=error, count=len(there))


def spread_shown(quantity: Quantity, values: Sequence[float | None]) -> str:
    """A figure over seeds as a cell: its mean, below it the standard error and the seeds where not all have it."""
    found = spread(values)
    if found is None:
        return "–"
    error = [] if found.standard_error is None else [f"± {shown(quantity, found.standard_error)}"]
    fewer = [f"{found.count} of {len(values)} seeds"] if found.count < len(values) else []
    return "\n".join((shown(quantity, found.mean), *([", ".join(error + fewer)] if error or fewer else [])))


def seed_groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in nothing but the seed together, in the order given; a seed stands once in a group.

    Runs are alike where model, tasks, prompt, shots asked for, learning rate and number of queries are.
    """
    groups: list[tuple[str, list[set[tuple[str, object]]], list[Run]]] = []
    for run in runs:
        key, seeds = _settings(run), {(task.task, _seed(task)) for task in run}
        for known, taken, members in groups:
            if known == key and not any(seeds & other for other in taken):
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
            **{name: task.results.get(name) for name in ("model", "task", "queries")},
            "shots": (task.results.get("demonstrations") or {}).get("requested"),
            "lr": (task.results.get("finetune") or {}).get("lr"),
        }
        for task in sorted(run, key=lambda task: task.task)
    ]
    return json.dumps(tasks, sort_keys=True)


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
    summaries = [summarise(sorted(run, key=lambda task: order.index(task.task)), tables) for run in group]
    rows: list[tuple[str, ...]] = []
    lines: list[tuple[str, ...]] = []
    model = summaries[0].model
    for same in zip(*(summary.rows for summary in summaries), strict=True):
        quantity, published = same[0].quantity, same[0].published
        columns = list(_columns(same))
        rows.append((quantity.row_label, *(spread_shown(quantity, values) for values in columns)))
        if published is not None:
            rows.append(("  published", *(shown(quantity, value) for value in (*published, same[0].published_mean))))
        for task, values in zip((*order, "mean"), columns, strict=True):
            lines.append((model, task, ".".join(quantity.key), *digits(spread(values))))
    return Grid(
        name=name,
        title=f"{model}: mean ± standard error over {seeds_of(group)}",
        header=("", *order, "mean"),
        rows=tuple(rows),
        notes=("the mean of the tasks is taken within each seed first",) if len(order) > 1 else (),
        numbers=(("model", "task", "quantity", "mean", "standard_error", "seeds"), *lines),
    )


def _columns(rows: Sequence[Row]) -> Iterator[list[float | None]]:
    """For each task, and for their mean, the value of each seed."""
    for number in range(len(rows[0].values)):
        yield [row.values[number] for row in rows]
    yield [row.mean for row in rows]


def digits(found: Spread | None) -> tuple[str, str, str]:
    """Mean, standard error and number of seeds for programs to read; empty where there is none."""
    if found is None:
        return "", "", "0"
    return repr(found.mean), "" if found.standard_error is None else repr(found.standard_error), str(found.count)
