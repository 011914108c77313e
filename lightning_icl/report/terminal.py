"""A table in the terminal, as wide as that is: too wide a table is turned or folded, no figure is broken."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_icl.console import terminal
from lightning_icl.report.grid import Grid, fitted, name_width


def print_grid(grid: Grid, console: Console | None = None) -> None:
    """Print a table and what is to be said below it.

    Args:
        grid: the table.
        console: where to; the terminal without.
    """
    console = console or terminal()
    if grid.title:
        console.print(Text(grid.title, style="bold"))
    for block in fitted(grid, console.width):
        console.print(grid_to_rich(block, name_width(block, console.width)))
    print_notes(grid.notes, console)


def print_notes(notes: Iterable[str], console: Console | None = None) -> None:
    """Print lines of small print."""
    console = console or terminal()
    for note in notes:
        console.print(Text(f"– {note}", style="dim"))


def grid_to_rich(grid: Grid, names: int) -> Table:
    """A table for rich.

    Args:
        grid: what it shows.
        names: columns of the terminal that the names of the rows may take; longer ones are broken into lines.
    """
    table = Table()
    for number, name in enumerate(grid.header):
        # Names may fold, figures may not: a broken number is unreadable.
        wrapped = {"width": names, "overflow": "fold"} if number == 0 else {"justify": "right", "no_wrap": False}
        table.add_column(_lines(name), vertical="top", **wrapped)  # type: ignore[arg-type]
    for number, row in enumerate(grid.rows):
        if number in grid.sections and number:
            table.add_section()
        table.add_row(*map(_lines, row))
    return table


def _lines(cell: str) -> Text:
    first, *small = cell.split("\n")
    indented = first.startswith(" ")
    # What stands below another row, and small print, are dimmer than their row.
    return Text.assemble((first, "dim" if indented else ""), *((f"\n{line}", "dim") for line in small))
