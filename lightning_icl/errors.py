"""Mistakes a user can make, as one family of exceptions that the command line prints without a traceback."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# A screen of 25 lines of 100 columns holds the longest message.
_LONGEST_WORD, _LONGEST_MESSAGE = 240, 2000


class UserError(ValueError):
    """Something the user gave cannot be used: the message says what was given, what is allowed and what to do."""


class TaskError(UserError):
    """A task, its template, its answer words or its rows cannot be used."""


class ModelError(UserError):
    """A model cannot be found, loaded safely, or probed rightly."""


class TextError(UserError):
    """Text to train on or to validate on cannot be found, read, or is too short."""


class ProtocolError(UserError):
    """Settings would break a protocol that the results stand for (one epoch, prompt order, batch size 1, ...)."""


class OutputError(UserError):
    """Results cannot be written where the user wants them."""


class InUseError(OutputError):
    """Another process uses the folder that results are to be written into."""


class NumericalError(UserError):
    """A model produced NaN or infinite numbers, so that nothing measured after would mean anything."""


class MemoryShortError(UserError):
    """One query alone needs more memory than the device has."""


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest valid name, then all valid names.

    >>> did_you_mean("sst-2", ["mr", "sst2", "sst5"])
    "Did you mean 'sst2'? Known: mr, sst2, sst5."
    """
    names = sorted(valid)
    # 0.5 in place of the usual 0.6: short names such as `sst-2` differ by much of themselves.
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    question = f"Did you mean {close[0]!r}? " if close else ""
    return f"{question}Known: {', '.join(names)}."


def shown(value: object, most: int = 80, quoted: bool = True) -> str:
    """A value as a message shows it: on one line, cut in the middle where it is long.

    >>> shown("a" * 500, most=11)
    "'aaaa…aaaa'"
    """
    text = repr(value) if quoted else str(value)
    return text if len(text) <= most else f"{text[: (most - 1) // 2]}…{text[-((most - 1) // 2) :]}"


def on_screen(message: str) -> str:
    """A message as a terminal shows it: one line, long words and long lists cut in the middle, nothing unprintable.

    >>> on_screen("Task 'a\\x1b[31m' is not known.")
    "Task 'a\\\\x1b[31m' is not known."
    """
    # A name from a file may hold control characters that move the cursor or colour the screen.
    line = " ".join(message.split())
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
    line = re.sub(r"\S{241,}", lambda word: shown(word[0], _LONGEST_WORD, quoted=False), line)
    return shown(line, _LONGEST_MESSAGE, quoted=False)
