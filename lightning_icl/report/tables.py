"""The paper's tables as rows of numbers, made of saved results alone: tasks across, one row for each quantity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_icl.errors import OutputError, did_you_mean
from lightning_icl.published import published_size
from lightning_icl.published import tables as published_tables
from lightning_icl.results import TaskRun


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One row of a table."""

    table: str
    """The table it stands in, as `--tables` names it."""
    label: str
    """What the row is called."""
    key: tuple[str, str]
    """Where it is in `results.json`."""
    percent: bool = False
    """Whether the saved share is shown in percent."""
    published: str | None = None
    """What the paper's figures call it."""
    baseline: bool = False
    """Whether it stands below a measure to compare it with."""

    @property
    def row_label(self) -> str:
        """What its row is called, indented where it stands below a measure."""
        return f"  {self.label}" if self.baseline else self.label


QUANTITIES = (
    Quantity(table="accuracy", label="ZSL accuracy", key=("accuracy", "zsl"), percent=True, published="accuracy_zsl"),
    Quantity(table="accuracy", label="FT accuracy", key=("accuracy", "ft"), percent=True, published="accuracy_ft"),
    Quantity(table="accuracy", label="ICL accuracy", key=("accuracy", "icl"), percent=True, published="accuracy_icl"),
    Quantity(table="rec2ftp", label="Rec2FTP", key=("rec2ftp", "value"), percent=True, published="rec2ftp"),
    Quantity(table="simaou", label="SimAOU", key=("sim_aou", "value"), published="sim_aou"),
    Quantity(table="simaou", label="random", key=("sim_aou", "random"), published="sim_aou_random", baseline=True),
    Quantity(table="simaou", label="raw", key=("sim_aou", "raw"), baseline=True),
    Quantity(table="simam", label="SimAM", key=("sim_am", "value"), published="sim_am"),
    Quantity(table="simam", label="zero-shot", key=("sim_am", "zsl"), published="sim_am_zsl", baseline=True),
    Quantity(table="simam", label="difference", key=("sim_am", "difference"), baseline=True),
    Quantity(table="kendall", label="Kendall", key=("kendall", "value"), published="kendall"),
    Quantity(table="kendall", label="random", key=("kendall", "random"), published="kendall_random", baseline=True),
)
TABLES = tuple(dict.fromkeys(quantity.table for quantity in QUANTITIES))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a summary: a value for each task, and their mean."""

    quantity: Quantity
    values: tuple[float | None, ...]
    published: tuple[float | None, ...] | None
    intervals: tuple[tuple[float, float] | None, ...] = ()
    """95% interval of each value, where the run has one; empty where it has none at all."""

    @property
    def mean(self) -> float | None:
        """Mean over the tasks that have a value."""
        return mean(self.values)

    @property
    def published_mean(self) -> float | None:
        """Mean of the published values."""
        return None if self.published is None else mean(self.published)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All rows of a run."""

    model: str
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """Reasons for what is undefined."""


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is there; None for nothing.

    >>> mean([1.0, None, 2.0])
    1.5
    """
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def summarise(runs: Sequence[TaskRun], tables: Sequence[str] | None = None) -> Summary:
    """The rows of the tables asked for, all of them for None.

    Raises:
        OutputError: an unknown table.
    """
    for table in tables or ():
        if table not in TABLES:
            raise OutputError(f"Table {table!r} is not known. {did_you_mean(table, TABLES)}")
    model = str(runs[0].results["model"]["name"])
    wanted = [quantity for quantity in QUANTITIES if tables is None or quantity.table in tables]
    return Summary(
        model=model,
        tasks=tuple(run.task for run in runs),
        rows=tuple(_row(quantity, runs, published_size(model)) for quantity in wanted),
        notes=_notes(runs, wanted),
    )


def _row(quantity: Quantity, runs: Sequence[TaskRun], size: str | None) -> Row:
    values = tuple(value_of(quantity, run.results) for run in runs)
    intervals = tuple(interval_of(quantity, run.results) for run in runs)
    published = None
    if size is not None and quantity.published is not None:
        known = published_tables()[size][quantity.published]
        published = tuple(known.get(run.task) for run in runs)
    return Row(quantity=quantity, values=values, published=published, intervals=intervals if any(intervals) else ())


def value_of(quantity: Quantity, results: Mapping[str, Any]) -> float | None:
    """A quantity in the unit it is shown in; None where it is undefined or missing."""
    level, key = quantity.key
    value = (results.get(level) or {}).get(key)
    if value is None:
        return None
    return 100 * float(value) if quantity.percent else float(value)


def interval_of(quantity: Quantity, results: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95% interval of a quantity in the unit it is shown in; None where there is none."""
    ends = (results.get("intervals") or {}).get(".".join(quantity.key))
    if not ends or None in ends:
        return None
    low, high = (100 * float(end) if quantity.percent else float(end) for end in ends)
    return low, high


def signed(quantity: Quantity, difference: float | None) -> str:
    """A difference with its sign, in the digits of its quantity."""
    if difference is None:
        return "–"
    text = shown(quantity, abs(difference))
    return text if not text.strip("0.") else f"{'+' if difference > 0 else '−'}{text}"


def interval_shown(quantity: Quantity, interval: tuple[float, float]) -> str:
    """An interval as text, Rec2FTP in whole percents: its few queries say no more.

    >>> interval_shown(QUANTITIES[3], (51.01, 100.0))
    '51–100'
    """
    low, high = (f"{end:.0f}" if quantity.table == "rec2ftp" else shown(quantity, end) for end in interval)
    return f"{low}–{high}" if quantity.percent and interval[0] >= 0 else f"{low} to {high}"


def _notes(runs: Sequence[TaskRun], wanted: Sequence[Quantity]) -> tuple[str, ...]:
    keys = [".".join(quantity.key) for quantity in wanted] + [quantity.key[0] for quantity in wanted]
    notes: dict[str, list[str]] = {}
    for run in runs:
        for key, reason in run.results.get("undefined", {}).items():
            if key in keys:
                notes.setdefault(f"{key} is undefined: {reason}", []).append(run.task)
    return tuple(f"{', '.join(tasks)}: {note}" for note, tasks in notes.items())


def shown(quantity: Quantity, value: float | None) -> str:
    """A value as text: percent with one decimal (Rec2FTP with two), other measures with three, a dash for none."""
    if value is None:
        return "–"
    if quantity.percent:
        return f"{value:.2f}" if quantity.table == "rec2ftp" else f"{value:.1f}"
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text
