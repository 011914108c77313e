"""What is printed for people: one console, and lines in which nothing is markup."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Columns of a table that is written to a file or pipe, where nothing says how wide it may be.
_WIDE = 132


def terminal() -> "Console":
    """The console, as wide as the terminal or as the environment's COLUMNS says; wide where neither says anything."""
    from rich.console import Console

    console = Console(force_jupyter=False)  # a notebook shows lines as other output, in its own type
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=_WIDE, force_jupyter=False)


def say(text: str, style: str = "") -> None:
    """Print a line as it is: names that look like markup stay what they are, and a terminal breaks it where it must.

    Args:
        text: the line.
        style: in rich's words, such as `dim` or `yellow`.
    """
    from rich.text import Text

    # As `Text`, in which brackets are no markup; wrapping is left to the terminal, which keeps words whole.
    terminal().print(Text(text, style=style), soft_wrap=True)
