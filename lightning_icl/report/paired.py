"""Paired tests: how far a run is from each of its controls, over the same queries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from lightning_icl.report.controls import COLUMNS, fewer_tasks, mean_of
from lightning_icl.report.grid import Grid
from lightning_icl.report.tables import Quantity, interval_shown, signed
from lightning_icl.results import TaskRun

FIGURES = tuple(column for column in COLUMNS if column[0] in ("SimAOU", "SimAM", "Kendall", "Rec2FTP"))
_QUANTILE = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """This run minus a control: the difference, its 95% interval, and the p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float
    tasks: int = 1
    """Tasks that it is the mean of."""


def paired_test(run: TaskRun, control: str, quantity: Quantity) -> PairedTest | None:
    """The test of one task, in the unit its figure is shown in; None where there is none."""
    found = ((run.results.get("paired") or {}).get(control) or {}).get(".".join(quantity.key))
    if not found or None in found.values():
        return None
    scale = 100.0 if quantity.percent else 1.0
    difference, low, high = (scale * float(found[name]) for name in ("difference", "low", "high"))
    return PairedTest(difference=difference, low=low, high=high, p=float(found["p"]))


def mean_test(tests: Sequence[PairedTest]) -> PairedTest | None:
    """The test of the mean over tasks, which are taken as fixed and independent; None for no task.

    Its interval reaches as far as the root of the tasks' summed squared reaches, each side for itself (Zou and Donner,
    2008); its p-value is that of a normal distribution with the interval's reach towards 0.

    >>> mean_test([PairedTest(difference=d, low=d - 3, high=d + 4, p=0.5) for d in (5.0, 7.0)]).difference
    6.0
    """
    if len(tests) < 2:
        return tests[0] if tests else None
    difference = fmean(test.difference for test in tests)
    down = math.hypot(*(test.difference - test.low for test in tests)) / len(tests)
    up = math.hypot(*(test.high - test.difference for test in tests)) / len(tests)
    reach = down if difference > 0 else up
    distance = abs(difference) / reach if reach else math.inf if difference else 0.0
    p = 2 * NormalDist().cdf(-_QUANTILE * distance)
    return PairedTest(difference=difference, low=difference - down, high=difference + up, p=p, tasks=len(tests))


def paired_grid(runs: Sequence[TaskRun]) -> Grid | None:
    """The differences from each control, means over the tasks that have each; None where a run has no paired tests."""
    names = list(dict.fromkeys(name for run in runs for name in run.results.get("paired") or {}))
    rows, lines, count = [], [], 0
    for name in names:
        cells = []
        for header, quantity in FIGURES:
            by_task = {run.task: test for run in runs if (test := paired_test(run, name, quantity))}
            whole = mean_test(list(by_task.values()))
            cells.append(_cell(quantity, whole, runs) if whole else "–")
            count += whole is not None
            for task, test in by_task.items():
                digits = map(repr, (test.difference, test.low, test.high, test.p))
                lines.append((task, name, header, *digits))
        rows.append((name, *cells))
    if not count:
        return None
    notes = [
        f"{count} tests; no p-value is corrected for their number, so where nothing differed about {0.05 * count:.0f} "
        "of them would still be below 0.05",
        "Rec2FTP in percentage points",
    ]
    if len(runs) > 1:
        notes.append(
            "a mean takes the tasks as fixed and independent; each task's own test is in the page under Task by task, "
            "and in paired.csv of --export"
        )
    return Grid(
        name="paired",
        title=f"This run minus each control, over the same queries: difference, p and 95% interval{mean_of(runs)}",
        header=("", *(header for header, _ in FIGURES)),
        rows=tuple(rows),
        notes=tuple(notes),
        numbers=(("task", "control", "figure", "difference", "low", "high", "p"), *lines),
    )


def _cell(quantity: Quantity, test: PairedTest, runs: Sequence[TaskRun]) -> str:
    p = "p<0.001" if test.p < 0.001 else f"p {test.p:.3f}"
    interval = interval_shown(quantity, (test.low, test.high))
    return f"{signed(quantity, test.difference)}, {p}\n{interval}{fewer_tasks(test.tasks, runs)}"
