"""What is printed: one console, lines in which nothing is markup, and a standard output that cannot end a run."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

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


class OutputStream:
    """Stands for a text stream that may be closed, full, without a reader, or of an encoding that lacks characters.

    Args:
        stream: the stream; None where the process was started without.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.fault: OSError | None = None if stream is not None else OSError(errno.EBADF, "it is closed")
        """Why something printed was lost; None where nothing was."""

    def write(self, text: str) -> int:
        """Print a text; characters that the stream's encoding lacks are written as escapes."""
        if self._stream is None or self.fault is not None:
            return len(text)
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            # An ASCII terminal lacks letters such as η; escapes are better than no output.
            encoding = self._stream.encoding or "ascii"
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Hand everything printed on."""
        if self._stream is not None and self.fault is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def _give_up(self, error: OSError) -> None:
        self.fault = error
        with suppress(OSError, ValueError):  # what is still in the stream's own buffer goes nowhere, in silence
            assert self._stream is not None
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_output() -> Iterator[OutputStream]:
    """Let nothing that becomes of standard output end what runs in the block."""
    stream = sys.stdout
    lasting = OutputStream(stream)
    sys.stdout = lasting
    try:
        yield lasting
    finally:
        lasting.flush()
        sys.stdout = stream
