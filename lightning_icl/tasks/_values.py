"""Values of a row: the text that a prompt shows, and the number that a label stands for.

JSON Lines, CSV and Parquet give the same value in different types, so both work on its text form: the same table gives
the same prompts and labels whatever file it lies in.
"""

import math
import re
from collections.abc import Sequence

from lightning_icl.errors import TaskError, shown

_NUMBER = re.compile(r"([+-]?[0-9]{1,18})(?:\.0*)?")  # `1.0` is what a table with a gap elsewhere makes of 1


def is_missing(value: object) -> bool:
    """Whether there is nothing: null, NaN, or a text of blanks alone, as an empty cell gives.

    >>> [is_missing(value) for value in (None, float("nan"), "", " ", "nan", 0)]
    [True, True, True, True, False, False]
    """
    # NaN is the only value unequal to itself.
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def text_of(value: object) -> str:
    r"""A value's text, each line break in it and the spaces around it made one space.

    >>> text_of("one\r\n two"), text_of(3)
    ('one two', '3')

    Raises:
        TaskError: it is null or NaN, no text or number, or holds characters that no text file can hold.
    """
    # An empty text is missing too, but a text all the same; the caller decides.
    if is_missing(value) and not isinstance(value, str):
        raise TaskError("there is no text.")
    if isinstance(value, list | tuple | dict | set | bytes) or (isinstance(value, float) and math.isinf(value)):
        raise TaskError(f"{shown(value)} is neither text nor a finite number.")
    text = str(value)
    # Some tokenizers accept half a surrogate pair and others fail on it, long after the rows were read.
    if not text.isascii() and (broken := re.search("[\ud800-\udfff]", text)):
        raise TaskError(
            f"character {broken.start() + 1} is half of a surrogate pair ({broken[0]!r}), which is no text."
        )
    # A line break inside a field would end the prompt's line, which templates mean as structure.
    return re.sub(r"\s*[\r\n]+\s*", " ", text)


def label_number(value: object, names: Sequence[str], count: int) -> int:
    """The number that a row's label stands for: its place among the names, or itself where there are no names.

    Args:
        value: the label as the row gives it.
        names: what labels are called, by number; none where rows give numbers.
        count: how many there are to choose from.

    >>> label_number("B", ["A", "B", "C"], 3), label_number(2, ["1", "2", "3"], 3), label_number("2", [], 3)
    (1, 1, 2)

    Raises:
        TaskError: it is none of them.
    """
    if is_missing(value):
        raise TaskError("the row has no label. Fill it in or leave the row out.")
    if names:
        # Several forms, since the same label is 1, 1.0 or "1" by file format.
        number = next((list(names).index(form) for form in _text_forms(value) if form in names), None)
        if number is None:
            numbered = _NUMBER.fullmatch(str(value).strip()) and not isinstance(value, bool)
            hint = " Where rows give numbers, leave `label_names` out." if numbered else ""
            raise TaskError(f"the label {shown(value)} must be one of {shown(', '.join(names), quoted=False)}.{hint}")
    else:
        # In Python True is the number 1, but as a label it is a mistake.
        match = None if isinstance(value, bool) else _NUMBER.fullmatch(str(value).strip())
        if match is None:
            raise TaskError(
                f"the label {shown(value)} must be a label number from 0 to {count - 1}. For labels as text, give "
                "their names in order as `label_names` in a task file."
            )
        number = int(match[1])
    if not 0 <= number < count:
        raise TaskError(f"the label {shown(value)} is out of range: labels go from 0 to {count - 1}.")
    return number


def _text_forms(value: object) -> list[str]:
    """What a label may be called, the most literal first: 1 is also 1.0, and true is also True."""
    text = str(value)
    stripped = text.strip()
    match = _NUMBER.fullmatch(stripped)
    truth = [stripped.lower(), stripped.capitalize()] if stripped.lower() in ("true", "false") else []
    return [text, stripped, *truth, *([match[1]] if match else [])]
