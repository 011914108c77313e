"""Paired tests: how far a run is from each of its controls, over the same queries."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from lightning_icl.measures import Figure, compared
from lightning_icl.report.controls import fewer_tasks, mean_of
from lightning_icl.report.figures import interval_shown, mean_interval, signed
from lightning_icl.report.grid import Grid
from lightning_icl.report.tables import digits
from lightning_icl.results import TaskRun

_QUANTILE = NormalDist().inv_cdf(0.975)
# Smallest p-value of a mean over tasks that is told: the normal distribution's tail says no more.
_SMALLEST = 0.001


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """This run minus a control: the difference, its 95% interval, and the p-value of no difference."""

    difference: float
    low: float
    high: float
    p: float
    at_floor: bool = False
    """Whether p is the smallest value that its method can give, so that it may be smaller."""
    tasks: int = 1
    """Tasks that it is the mean of."""

    @property
    def equal(self) -> bool:
        """Whether both are the same query by query, by construction: such a control tests nothing."""
        return self.difference == self.low == self.high == 0.0


Key = tuple[str, str]
"""A control, and the path of a figure."""


def paired_test(run: TaskRun, control: str, figure: Figure) -> PairedTest | None:
    """The test of one task, in the unit its figure is shown in; None where there is none."""
    # Runs of earlier versions have no paired tests.
    saved = ((run.results.get("paired") or {}).get(control) or {}).get(figure.path)
    if not saved or None in saved.values():
        return None
    scale = 100.0 if figure.measure.percent else 1.0
    difference, low, high = (scale * float(saved[name]) for name in ("difference", "low", "high"))
    replicates, p = (run.results.get("bootstrap") or {}).get("replicates"), float(saved["p"])
    # Of R replicates at least one counts on either side, so p cannot be smaller than this.
    at_floor = replicates is not None and p <= 2 / (replicates + 1) + 1e-12
    return PairedTest(difference=difference, low=low, high=high, p=p, at_floor=at_floor)


def mean_test(tests: Sequence[PairedTest]) -> PairedTest | None:
    """The test of the mean over tasks, which are taken as fixed and independent; None for no task.

    Its p-value is that of a normal distribution with the interval's reach towards 0.

    >>> mean_test([PairedTest(difference=d, low=d - 3, high=d + 4, p=0.5) for d in (5.0, 7.0)]).difference
    6.0
    """
    if len(tests) < 2:
        return tests[0] if tests else None
    differences = [test.difference for test in tests]
    difference = sum(differences) / len(tests)
    # The interval of the mean over tasks, then a test of its distance from 0.
    ends = mean_interval(differences, [(test.low, test.high) for test in tests])
    assert ends is not None
    reach = difference - ends[0] if difference > 0 else ends[1] - difference
    # No reach means that every task's difference is the same; only zero is then no difference.
    distance = abs(difference) / reach if reach else math.inf if difference else 0.0
    p = 2 * NormalDist().cdf(-_QUANTILE * distance)
    low, high = ends
    return PairedTest(
        difference=difference, low=low, high=high, p=max(p, _SMALLEST), at_floor=p <= _SMALLEST, tasks=len(tests)
    )


def corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The same tests with p-values that hold the false discovery rate over all of them (Benjamini and Hochberg)."""
    if not tests:
        return []
    from scipy.stats import false_discovery_control  # slow to import

    corrected_p = false_discovery_control([test.p for test in tests])
    return [replace(test, p=float(p)) for test, p in zip(tests, corrected_p, strict=True)]


def control_tests(runs: Sequence[TaskRun]) -> dict[Key, PairedTest]:
    """Of every control and figure the test of the mean over the tasks that have it, p-values as they were found."""
    names = dict.fromkeys(name for run in runs for name in run.results.get("paired") or {})
    tests: dict[Key, PairedTest] = {}
    for name in names:
        for figure in compared():
            by_task = [test for run in runs if (test := paired_test(run, name, figure))]
            if (whole := mean_test(by_task)) is not None:
                tests[name, figure.path] = whole
    return tests


def paired_grid(runs: Sequence[TaskRun]) -> Grid | None:
    """The differences from each control, means over the tasks that have each; None where a run has no paired tests."""
    every = control_tests(runs)
    # A control that cannot differ (the untrained model under itself) is no test, and would weaken the others.
    unequal = {key: test for key, test in every.items() if not test.equal}
    if not unequal:
        return None
    tests = dict(zip(unequal, corrected(list(unequal.values())), strict=True))
    rows = []
    # In order of first use, which is the catalogue's.
    for name in dict.fromkeys(name for name, _ in tests):
        keys = ((figure, (name, figure.path)) for figure in compared())
        rows.append((name, *(_cell(figure, tests.get(key), key in every, runs) for figure, key in keys)))
    return Grid(
        name="paired",
        title=f"This run minus each control, over the same queries: difference, p and 95% interval{mean_of(runs)}",
        header=("", *(figure.measure.name for figure in compared())),
        rows=tuple(rows),
        notes=tuple(_notes(runs, len(tests), len(every) - len(tests))),
        numbers=(("task", "control", "figure", "difference", "low", "high", "p", "p_corrected"), *_numbers(runs)),
    )


def _notes(runs: Sequence[TaskRun], tests: int, equal: int) -> Iterator[str]:
    yield (
        f"{tests} {'test' if tests == 1 else 'tests'}; p-values are corrected for their number by the false discovery "
        "rate (Benjamini and Hochberg): of all differences with p below 0.05, at most 5% are expected to be none"
    )
    if equal:
        yield f"{equal} comparisons that a control cannot change are marked = and are no tests"
    if any(figure.measure.percent for figure in compared()):
        yield f"{', '.join(f.measure.name for f in compared() if f.measure.percent)} in percentage points"
    if len(runs) > 1:
        yield (
            "a mean takes the tasks as fixed and independent; each task's own test is in the page under Task by task, "
            "and in paired.csv of --export"
        )


def _cell(figure: Figure, test: PairedTest | None, equal: bool, runs: Sequence[TaskRun]) -> str:
    if test is None:
        return "=" if equal else "–"
    interval = interval_shown(figure, (test.low, test.high))
    return f"{signed(figure, test.difference)}\n{p_shown(test)}\n{interval}{fewer_tasks(test.tasks, len(runs))}"


def p_shown(test: PairedTest) -> str:
    """A p-value as text; one at the floor of its method is an upper bound.

    >>> p_shown(PairedTest(difference=1, low=0.5, high=2, p=2 / 1001, at_floor=True))
    'p ≤ 0.002'
    """
    # At its floor a p-value is an upper bound and not a value.
    return f"p {'≤' if test.at_floor else '='} {test.p:.3f}"


def _numbers(runs: Sequence[TaskRun]) -> Iterator[tuple[str, ...]]:
    """Each task's own tests, corrected for the number of these."""
    single = [(run.task, key, test) for run in runs for key, test in control_tests([run]).items() if not test.equal]
    better = corrected([test for *_, test in single])
    for (task, (control, path), test), improved in zip(single, better, strict=True):
        yield (task, control, path, *map(digits, (test.difference, test.low, test.high, test.p, improved.p)))
