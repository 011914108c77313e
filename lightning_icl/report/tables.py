"""The paper's tables, made of saved results alone: tasks across, one row for each figure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning_icl.errors import OutputError, did_you_mean
from lightning_icl.measures import Figure, table_figures, table_names
from lightning_icl.published import published_size
from lightning_icl.published import tables as published_tables
from lightning_icl.report.figures import Interval, interval_of, interval_shown, mean, mean_interval, shown, value_of
from lightning_icl.report.grid import PUBLISHED, Grid
from lightning_icl.results import TaskRun

_ENDS = ("low", "high")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of a run: a value for each task."""

    figure: Figure
    values: tuple[float | None, ...]
    intervals: tuple[Interval | None, ...]
    """95% interval of each value, where the run has one."""
    counts: tuple[int | None, ...]
    """Of a share of a part of the queries, their number."""
    published: tuple[float | None, ...] | None
    """The paper's values, where the model is one of the paper's."""


def model_name(runs: Sequence[TaskRun]) -> str:
    """The model of a run."""
    return str(runs[0].results["model"]["name"])


def chosen_figures(tables: Sequence[str] | None) -> list[Figure]:
    """The figures of the tables asked for, all of them for None.

    Raises:
        OutputError: an unknown table.
    """
    for table in tables or ():
        if table not in table_names():
            raise OutputError(f"Table {table!r} is not known. {did_you_mean(table, table_names())}")
    return [figure for figure in table_figures() if tables is None or figure.measure.table in tables]


def summary_rows(
    runs: Sequence[TaskRun], tables: Sequence[str] | None = None, beside: Sequence[TaskRun] = ()
) -> list[Row]:
    """Every row of the tables asked for, all of them for None.

    Args:
        runs: the tasks of one run.
        tables: which tables.
        beside: tasks of other runs; a row that these have, this one has too.

    Raises:
        OutputError: an unknown table.
    """
    size = published_size(model_name(runs))
    return [_row(figure, runs, size) for figure in chosen_figures(tables) if _has_row(figure, [*runs, *beside])]


def _has_row(figure: Figure, runs: Sequence[TaskRun]) -> bool:
    """Whether it is a main figure, or one that a run may have: not every version measured every form and baseline."""
    parts = [run.results.get(figure.measure.level) for run in runs]
    # A main figure is shown even when undefined: its dash says something.
    return figure.role == "main" or any(part is None or figure.key in part for part in parts)


def _row(figure: Figure, runs: Sequence[TaskRun], size: str | None) -> Row:
    published = published_tables()[size][figure.name] if size is not None and figure.published else None
    return Row(
        figure=figure,
        values=tuple(value_of(figure, run.results) for run in runs),
        intervals=tuple(interval_of(figure, run.results) for run in runs),
        counts=tuple((run.results.get(figure.measure.level) or {}).get(figure.count) for run in runs),
        published=None if published is None else tuple(published.get(run.task) for run in runs),
    )


def summary_grid(runs: Sequence[TaskRun], tables: Sequence[str] | None = None, *, intervals: bool = False) -> Grid:
    """Tasks across, with their mean where there are several; what was published stands below ours.

    Args:
        runs: the tasks of one run.
        tables: which tables; None for all.
        intervals: whether each figure has its interval below; without, only a share of a part of the queries, whose
            number the share does not show.

    Raises:
        OutputError: an unknown table.
    """
    rows = summary_rows(runs, tables)
    lines: list[tuple[str, ...]] = []
    sections = []
    for number, row in enumerate(rows):
        # A line between the measures, not between their figures.
        if number and row.figure.measure != rows[number - 1].figure.measure:
            sections.append(len(lines))
        lines += _lines(row, intervals, with_mean=len(runs) > 1)
    return Grid(
        name="summary",
        title=f"{model_name(runs)}: zero-shot (ZSL), fine-tuned (FT) and in-context (ICL)",
        header=("", *(run.task for run in runs), *(["mean"] if len(runs) > 1 else [])),
        rows=tuple(lines),
        notes=tuple(_notes(runs, rows)),
        sections=tuple(sections),
        turns=True,
        numbers=tuple(_numbers(runs, rows)),
    )


def _lines(row: Row, intervals: bool, with_mean: bool) -> Iterator[tuple[str, ...]]:
    """The row as text, and below it the published one."""
    # One task needs no mean of itself.
    values = [*row.values, *([mean(row.values)] if with_mean else [])]
    ends = [*row.intervals, *([mean_interval(row.values, row.intervals)] if with_mean else [])]
    counts = [*row.counts, *([None] if with_mean else [])]
    small = [
        ("95% interval", [interval_shown(row.figure, interval) for interval in ends]),
        (row.figure.counts, ["" if count is None else f"{count:,}" for count in counts]),
    ]
    names, cells = [label(row.figure)], [[shown(row.figure, value)] for value in values]
    for name, texts in small if intervals or row.figure.count else ():
        # A row of empty small print would only take space.
        if any(texts):
            names.append(f"  {name}")
            for cell, text in zip(cells, texts, strict=True):
                cell.append(text)
    # Trailing lines of cells without small print are dropped.
    yield "\n".join(names), *("\n".join(cell).rstrip("\n") for cell in cells)
    if row.published is not None:
        published = [*row.published, *([mean(row.published)] if with_mean else [])]
        yield f"  {PUBLISHED}", *(shown(row.figure, value) for value in published)


def label(figure: Figure) -> str:
    """What a figure's row is called, indented where it stands below a measure."""
    return f"  {figure.label}" if figure.indented else figure.label


def reader_notes(runs: Sequence[TaskRun]) -> list[str]:
    """What keeps a reader of the runs from a wrong conclusion, once for all tasks that say the same."""
    notes = [(run.task, str(note["text"]).rstrip(".")) for run in runs for note in run.results.get("notes") or ()]
    return _by_task(notes)


def _by_task(texts: Sequence[tuple[str, str]]) -> list[str]:
    """Each text once, behind the tasks that it is said of."""
    tasks: dict[str, list[str]] = {}
    for task, text in texts:
        tasks.setdefault(text, []).append(task)
    return [f"{', '.join(names)}: {text}" for text, names in tasks.items()]


def _notes(runs: Sequence[TaskRun], rows: Sequence[Row]) -> Iterator[str]:
    yield from reader_notes(runs)
    # Only what the tables show: reasons of other figures are in the file.
    paths = {name for row in rows for name in (row.figure.path, row.figure.measure.level)}
    yield from _by_task(
        [
            (run.task, f"{path} is undefined: {reason}")
            for run in runs
            for path, reason in (run.results.get("undefined") or {}).items()
            if path in paths
        ]
    )


def _numbers(runs: Sequence[TaskRun], rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """One line for each figure, task and source, with all digits and the ends of its 95% interval."""
    yield ("model", "task", "quantity", "source", "value", *_ENDS)
    for row in rows:
        for run, value, interval in zip(runs, row.values, row.intervals, strict=True):
            # A pair of None fills both ends' columns.
            ends = interval or (None, None)
            yield (model_name(runs), run.task, row.figure.path, "measured", *map(digits, (value, *ends)))
        for run, value in zip(runs, row.published or (), strict=False):
            yield (model_name(runs), run.task, row.figure.path, "published", digits(value), "", "")


def digits(value: float | None) -> str:
    """A number for programs to read, unrounded; empty for none."""
    # `repr` keeps every digit of a float.
    return "" if value is None else repr(value)
