"""A run and its controls, figure by figure: values with intervals, as rows of a forest plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_icl.measures import Figure
from lightning_icl.report.controls import control_names, controls_of
from lightning_icl.report.figures import Interval, interval_in, interval_of, mean, mean_interval, value_of
from lightning_icl.results import TaskRun

_Entry = tuple[Mapping[str, Any], Interval | None]


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """The run or a control: the mean over the tasks that have the figure, and its interval where all have one."""

    name: str
    value: float
    interval: Interval | None
    own: bool
    """Whether it is the run itself."""


def forest_rows(figure: Figure, runs: Sequence[TaskRun]) -> list[ForestRow]:
    """The run first, then every control that has the figure; none where the run has no controls."""
    names = control_names(runs)
    rows = [_row("this run", figure, [(run.results, interval_of(figure, run.results)) for run in runs], own=True)]
    for name in names:
        entries = [
            (controls_of(run)[name], interval_in(figure, (run.results.get("contrast_intervals") or {}).get(name) or {}))
            for run in runs
            if name in controls_of(run)
        ]
        rows.append(_row(name, figure, entries))
    # A run without controls has nothing to be compared with, and no plot.
    return [row for row in rows if row is not None] if names else []


def _row(name: str, figure: Figure, entries: Sequence[_Entry], own: bool = False) -> ForestRow | None:
    values = [value_of(figure, results) for results, _ in entries]
    value = mean(values)
    if value is None:
        return None
    return ForestRow(name=name, value=value, interval=mean_interval(values, [ends for _, ends in entries]), own=own)
