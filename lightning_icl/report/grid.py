"""A table of text, and the formats it is written in: Markdown, CSV, LaTeX, and lines for the terminal."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rich.table import Table
from rich.text import Text

# Backslash and braces are replaced in one pass with the others, so that no replacement is replaced again.
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$", "×": r"$\times$",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table as text: the first column names its row; a cell's second line is small print."""

    name: str
    """What its files are called."""
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    numbers: tuple[tuple[str, ...], ...] = ()
    """Lines for CSV, its header first, where cells hold more than one number."""


def grid_to_markdown(grid: Grid) -> str:
    """Markdown, right-aligned but for the first column; bars inside cells are escaped."""
    lines = [_bars(grid.header), "|---|" + "---:|" * (len(grid.header) - 1), *(_bars(row) for row in grid.rows)]
    return "\n".join([f"**{grid.title}**", "", *lines, *(f"\n{note}." for note in grid.notes)]) + "\n"


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def grid_to_csv(grid: Grid) -> str:
    """CSV with a header line; minus signs are those that programs read."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    lines = grid.numbers or (grid.header, *grid.rows)
    plain = [["" if cell == "–" else cell.replace("−", "-").replace("\n", " ") for cell in line] for line in lines]
    writer.writerows(plain)
    return text.getvalue()


def grid_to_latex(grid: Grid) -> str:
    """A `table` for the `booktabs` package, with title and notes as its caption."""
    caption = ". ".join((grid.title, *grid.notes))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(caption)}.}}",
            r"\begin{tabular}{l" + "r" * (len(grid.header) - 1) + "}",
            r"\toprule",
            _ampersands(grid.header),
            r"\midrule",
            *(_ampersands(row) for row in grid.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex(text: str) -> str:
    r"""Text as LaTeX prints it.

    >>> latex("50% of a_b")
    '50\\% of a\\_b'
    """
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found.group()], text)


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(latex(cell) for cell in cells) + r" \\"


def grid_to_rich(grid: Grid) -> Table:
    """A table for the terminal."""
    table = Table(title=Text(grid.title), title_justify="left")
    for number, name in enumerate(grid.header):
        table.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    for row in grid.rows:
        table.add_row(*map(_lines, row))
    return table


def _lines(cell: str) -> Text:
    first, *small = cell.split("\n")
    return Text.assemble(first, *((f"\n{line}", "dim") for line in small))


def grid_to_html(grid: Grid) -> str:
    """A table for a page, in a box that scrolls sideways where it is too wide."""
    head = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in grid.header)
    body = "".join(map(_row, grid.rows))
    notes = "".join(f"<li>{escape(note)}.</li>" for note in grid.notes)
    return (
        f'<p class="caption">{escape(grid.title)}.</p><div class="scroll"><table class="figures"><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>" + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _row(row: Sequence[str]) -> str:
    """An indented name marks what the row above is compared with."""
    kind = ' class="baseline"' if row[0].startswith(" ") else ""
    cells = "".join(f"<td>{_small(cell)}</td>" for cell in row[1:])
    return f"<tr{kind}><th scope=row>{_small(row[0].strip())}</th>{cells}</tr>"


def _small(cell: str) -> str:
    first, *small = map(escape, cell.split("\n"))
    return first + "".join(f"<small>{line}</small>" for line in small)
