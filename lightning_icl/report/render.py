"""A summary in the terminal, as Markdown, and as CSV."""

import csv
import io

from rich.table import Table
from rich.text import Text

from lightning_icl.report.grid import Grid, grid_to_latex
from lightning_icl.report.tables import Row, Summary, shown


def to_rich(summary: Summary) -> Table:
    """A table for the terminal; published figures stand in grey below ours."""
    table = Table()
    table.add_column("")
    for task in summary.tasks:
        table.add_column(task, justify="right")
    table.add_column("mean", justify="right")
    last = None
    for row in summary.rows:
        if last is not None and row.quantity.table != last:
            table.add_section()
        last = row.quantity.table
        table.add_row(*_cells(row))
        if row.published is not None:
            cells = ["published", *(shown(row.quantity, value) for value in (*row.published, row.published_mean))]
            table.add_row(*(Text(cell, style="dim") for cell in cells))
    return table


def to_markdown(summary: Summary) -> str:
    """The same as Markdown."""
    lines = [
        "| | " + " | ".join((*summary.tasks, "mean")) + " |",
        "|---|" + "---:|" * (len(summary.tasks) + 1),
    ]
    for row in summary.rows:
        lines.append("| " + " | ".join(_cells(row)) + " |")
        if row.published is not None:
            cells = ["published", *(shown(row.quantity, value) for value in (*row.published, row.published_mean))]
            lines.append("| " + " | ".join(f"*{cell}*" for cell in cells) + " |")
    return "\n".join([*lines, *(f"\n{note}." for note in summary.notes)]) + "\n"


def to_csv(summary: Summary) -> str:
    """One line for each quantity, task and source, with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "task", "quantity", "source", "value"])
    for row in summary.rows:
        name = ".".join(row.quantity.key)
        for source, values in (("measured", row.values), ("published", row.published or ())):
            for task, value in zip(summary.tasks, values, strict=False):
                writer.writerow([summary.model, task, name, source, "" if value is None else repr(value)])
    return text.getvalue()


def to_latex(summary: Summary) -> str:
    """The same as a LaTeX table, published figures below ours."""
    rows = []
    for row in summary.rows:
        rows.append(tuple(_cells(row)))
        if row.published is not None:
            cells = (shown(row.quantity, value) for value in (*row.published, row.published_mean))
            rows.append(("  published", *cells))
    grid = Grid(
        name="summary",
        title=f"{summary.model}: zero-shot (ZSL), fine-tuned (FT) and in-context (ICL)",
        header=("", *summary.tasks, "mean"),
        rows=tuple(rows),
        notes=summary.notes,
    )
    return grid_to_latex(grid)


def _cells(row: Row) -> list[str]:
    label = f"  {row.quantity.label}" if row.quantity.baseline else row.quantity.label
    return [label, *(shown(row.quantity, value) for value in (*row.values, row.mean))]
