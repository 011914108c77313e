"""A table of text that every format is made of; as Markdown, as CSV, turned, and folded to a width."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

from rich.cells import cell_len

PUBLISHED = "published"
"""What the row is called that has the published values of the row above."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table as text: the first column names its row; a cell's further lines are small print.

    A name that begins with a blank stands below the row that it is to be compared with.
    """

    name: str
    """What its files are called."""
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    sections: tuple[int, ...] = ()
    """Numbers of the rows that begin a new part."""
    parts: tuple[int, ...] = ()
    """Numbers of the columns that begin a new part, which is not broken if it can be; none where columns are alone."""
    turns: bool = False
    """Whether rows and columns change places where it is too wide."""
    numbers: tuple[tuple[str, ...], ...] = ()
    """Lines for CSV, its header first: one unrounded value a cell."""


def widths(grid: Grid) -> list[int]:
    """Columns of a terminal that each column of the table takes."""
    # Small print has lines of its own, so the longest line decides.
    columns = zip(grid.header, *grid.rows, strict=True)
    # In cells of the terminal: some letters take two columns.
    return [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]


def fitted(grid: Grid, width: int, frame: int = 3) -> list[Grid]:
    """A table as one or several that are no wider than `width`: first turned where it may be, then folded.

    Args:
        grid: the table.
        width: columns at hand.
        frame: columns that the frame takes for each column; the table takes one more.
    """
    if _width(grid, width, frame) <= width:
        # As it is, if it fits: turning changes which way the eye reads.
        return [grid]
    # Turned first, then folded: columns of tasks fold badly.
    return _folded(turned(grid) if grid.turns else grid, width, frame)


def _width(grid: Grid, width: int, frame: int) -> int:
    """What the table needs at least."""
    return _least_names(grid, width) + sum(widths(grid)[1:]) + frame * len(grid.header) + 1


def _least_names(grid: Grid, width: int) -> int:
    """Columns that names need if only their small print is broken into lines; at most a third of all."""
    longest = max(cell_len(row[0].split("\n")[0]) for row in (grid.header, *grid.rows))
    # A third at most, or one long name would leave no room for figures.
    return min(longest, max(width // 3, 14))


def name_width(grid: Grid, width: int, frame: int = 3) -> int:
    """Columns for the names of rows: what the others leave."""
    least = _least_names(grid, width)
    return min(widths(grid)[0], least + max(0, width - _width(grid, width, frame)))


def _folded(grid: Grid, width: int, frame: int) -> list[Grid]:
    """Blocks of columns, each with the names of the rows; their small print stands in the first."""
    space = width - _least_names(grid, width) - frame - 1
    blocks = _blocks(grid, space, frame)
    return [
        replace(
            grid,
            title="" if number else grid.title,
            # Every block repeats the names, or its rows could not be told apart.
            header=_chosen(grid.header, block),
            rows=tuple(_chosen(row, block, named=number == 0) for row in grid.rows),
            notes=grid.notes if number == len(blocks) - 1 else (),
        )
        for number, block in enumerate(blocks)
    ]


def _blocks(grid: Grid, space: int, frame: int) -> list[list[int]]:
    """Numbers of the columns of each block; a part begins a new one rather than be broken."""
    needs = [width + frame for width in widths(grid)]
    blocks: list[list[int]] = [[]]

    def fits(columns: Sequence[int]) -> bool:
        return not blocks[-1] or sum(needs[column] for column in (*blocks[-1], *columns)) <= space

    for part in _parts(grid):
        # A part is kept whole as long as it fits into a block of its own.
        if not fits(part):
            blocks.append([])
        for column in part:
            if not fits([column]):
                blocks.append([])
            blocks[-1].append(column)
    return blocks


def _parts(grid: Grid) -> list[list[int]]:
    starts = sorted({1, *grid.parts}) if grid.parts else range(1, len(grid.header))
    ends = [*starts[1:], len(grid.header)]
    return [list(range(start, end)) for start, end in zip(starts, ends, strict=True)]


def _chosen(cells: Sequence[str], columns: Sequence[int], named: bool = True) -> tuple[str, ...]:
    return cells[0] if named else cells[0].split("\n")[0], *(cells[column] for column in columns)


def turned(grid: Grid) -> Grid:
    """Rows as columns; the parts of the rows become those of the columns."""
    # Sections of rows become parts of columns, which folding keeps together.
    starts = [0, *grid.sections]
    sections = [grid.rows[start:end] for start, end in zip(starts, [*grid.sections, len(grid.rows)], strict=True)]
    header = ["", *(heading for section in sections for heading in _headings([row[0] for row in section]))]
    columns = zip(grid.header[1:], *(row[1:] for row in grid.rows), strict=True)
    parts = tuple(row + 1 for row in grid.sections)
    return replace(grid, header=tuple(header), rows=tuple(columns), sections=(), parts=parts)


def _headings(names: Sequence[str]) -> Iterator[str]:
    """Names of the rows of a part, narrow; what stands below one row alone has that row's name above its own."""
    tops = [name for name in names if not name.startswith(" ")]
    top = tops[0].split("\n")[0] if len(tops) == 1 else ""
    above: list[str] = []
    for name in names:
        first, *small = (line.strip() for line in name.split("\n"))
        if first == PUBLISHED:
            # A published value stands below ours, so it takes the heading above it.
            yield "\n".join([*above, first])
            continue
        # Words below each other, since a column is narrower than a name.
        above = [*([top] if top and name.startswith(" ") else []), *first.split(" ")]
        yield "\n".join([*above, *small])


def grid_to_markdown(grid: Grid) -> str:
    """Markdown, right-aligned but for the first column; nothing in a cell is markup."""
    lines = [_bars(grid.header), "|---|" + "---:|" * (len(grid.header) - 1), *(_bars(row) for row in grid.rows)]
    return "\n".join([f"**{markdown(grid.title)}**", "", *lines, *(f"\n{markdown(n)}." for n in grid.notes)]) + "\n"


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join("<br>".join(map(_line, cell.split("\n"))) for cell in cells) + " |"


def _line(text: str) -> str:
    """A line of a cell; blanks before it, which Markdown would drop, as one that it keeps."""
    words = text.lstrip(" ")
    return ("" if words == text else "&emsp;") + markdown(words)


def markdown(text: str) -> str:
    r"""Text as Markdown shows it, on one line.

    >>> markdown("a|b *c*\n<i>")
    'a\\|b \\*c\\* &lt;i&gt;'
    """
    plain = escape(" ".join(text.split("\n")), quote=False)
    # Entities first, then Markdown's own signs; `&amp;` alone is safe in Markdown and reads badly.
    return "".join(f"\\{letter}" if letter in "\\`*_[]|~#" else letter for letter in plain).replace("&amp;", "&")


def grid_to_csv(grid: Grid) -> str:
    """CSV with a header line: unrounded numbers where the table has them; no cell is a formula to a spreadsheet."""
    return csv_text(grid.numbers or (grid.header, *grid.rows))


def csv_text(lines: Sequence[Sequence[str]]) -> str:
    """Lines as CSV; minus signs are those that programs read, a dash is empty."""
    # Without a carriage return, which most programs would show.
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_plain(cell) for cell in line] for line in lines])
    return text.getvalue()


def _plain(cell: str) -> str:
    """A cell that programs read as it is, and spreadsheets as text unless it is a number.

    >>> _plain("=1+1"), _plain("−0.5"), _plain("–")
    ("'=1+1", '-0.5', '')
    """
    text = "" if cell == "–" else cell.replace("−", "-").replace("\n", " ")
    # A spreadsheet runs a cell that begins with one of these; a quote makes it text.
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
