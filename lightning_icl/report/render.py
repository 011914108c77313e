"""A summary in the terminal, as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Iterator
from typing import Literal, NamedTuple

from rich.table import Table
from rich.text import Text

from lightning_icl.report.grid import Grid, grid_to_latex
from lightning_icl.report.tables import Row, Summary, interval_shown, shown

_INTERVALS = "Below {}, the 95% interval over queries"


class Line(NamedTuple):
    """One line of the table as text."""

    kind: Literal["figure", "interval", "published"]
    cells: tuple[str, ...]
    table: str
    """The part of the table it stands in."""


def summary_lines(summary: Summary, intervals: bool = False) -> Iterator[Line]:
    """Every line of the table: figures, their intervals, and what was published.

    Args:
        summary: the figures.
        intervals: whether each figure has a line with its interval; without, only Rec2FTP, whose few queries its value
            does not show.
    """
    for row in summary.rows:
        table = row.quantity.table
        figures = (shown(row.quantity, value) for value in (*row.values, row.mean))
        yield Line("figure", (row.quantity.row_label, *figures), table)
        if _has_interval(row, intervals):
            ends = (interval_shown(row.quantity, interval) if interval else "" for interval in row.intervals)
            yield Line("interval", ("  interval", *ends, ""), table)
        if row.published is not None:
            known = (shown(row.quantity, value) for value in (*row.published, row.published_mean))
            yield Line("published", ("published", *known), table)


def _has_interval(row: Row, intervals: bool) -> bool:
    return bool(row.intervals) and (intervals or row.quantity.table == "rec2ftp")


def summary_notes(summary: Summary, intervals: bool = False) -> list[str]:
    """What to say below the table."""
    there = any(_has_interval(row, intervals) for row in summary.rows)
    return [_INTERVALS.format("each figure" if intervals else "Rec2FTP"), *summary.notes] if there else [*summary.notes]


def to_rich(summary: Summary, intervals: bool = False) -> Table:
    """A table for the terminal; intervals and published figures stand in grey below ours."""
    table = Table()
    table.add_column("")
    for task in summary.tasks:
        table.add_column(task, justify="right")
    table.add_column("mean", justify="right")
    last = None
    for line in summary_lines(summary, intervals):
        if last is not None and line.table != last:
            table.add_section()
        last = line.table
        table.add_row(*(Text(cell, style="" if line.kind == "figure" else "dim") for cell in line.cells))
    return table


def to_markdown(summary: Summary, intervals: bool = False) -> str:
    """The same as Markdown."""
    lines = [
        "| | " + " | ".join((*summary.tasks, "mean")) + " |",
        "|---|" + "---:|" * (len(summary.tasks) + 1),
    ]
    for line in summary_lines(summary, intervals):
        cells = (f"*{cell}*" if cell and line.kind == "published" else cell for cell in line.cells)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(f"\n{note}." for note in summary_notes(summary, intervals))]) + "\n"


def to_csv(summary: Summary) -> str:
    """One line for each quantity, task and source, with all digits and the ends of its 95% interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "task", "quantity", "source", "value", "low", "high"])
    for row in summary.rows:
        name = ".".join(row.quantity.key)
        for source, values in (("measured", row.values), ("published", row.published or ())):
            for number, (task, value) in enumerate(zip(summary.tasks, values, strict=False)):
                interval = row.intervals[number] if source == "measured" and row.intervals else None
                digits = ["" if number is None else repr(number) for number in (value, *(interval or (None, None)))]
                writer.writerow([summary.model, task, name, source, *digits])
    return text.getvalue()


def to_latex(summary: Summary, intervals: bool = False) -> str:
    """The same as a LaTeX table."""
    grid = Grid(
        name="summary",
        title=f"{summary.model}: zero-shot (ZSL), fine-tuned (FT) and in-context (ICL)",
        header=("", *summary.tasks, "mean"),
        rows=tuple(line.cells for line in summary_lines(summary, intervals)),
        notes=tuple(summary_notes(summary, intervals)),
    )
    return grid_to_latex(grid)
