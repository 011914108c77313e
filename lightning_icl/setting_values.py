"""The values of settings, read by the type of their field: from the text of a flag, or as YAML gives them.

YAML has types of its own: its text is never taken for a number, or for true or false. NaN and infinity are no settings.
"""

import math
import re
import types
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false, without quotes"}
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def from_text(kind: Any, text: str) -> Any:
    """The value that a flag's text stands for; None where it stands for none.

    >>> from_text(int | None, "12"), from_text(float, "1e-3"), from_text(list[int] | str, "1,2"), from_text(int, "x")
    (12, 0.001, [1, 2], None)
    """
    return _first(_text_as(option, text) for option in _options(kind))


def from_yaml(kind: Any, value: object) -> Any:
    """The value that a key of a YAML file has; None where it has one of the wrong type.

    >>> from_yaml(float, 1), from_yaml(str, 32), from_yaml(bool, "false"), from_yaml(int, True), from_yaml(int, "1")
    (1.0, '32', None, None, None)
    """
    return _first(_yaml_as(option, value) for option in _options(kind))


def expected(kind: Any) -> str:
    """What a value of some type is, in words.

    >>> expected(int | Literal["published"] | None)
    'a whole number or published'
    """
    words = []
    for option in _options(kind):
        if get_origin(option) is Literal:
            words += list(get_args(option))
        elif get_origin(option) is list:
            words.append(f"{expected(get_args(option)[0])}, or several with commas between them")
        else:
            words.append(_WORDS[option])
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def nearest(kind: Any, value: object) -> str:
    """The end of a message about a value that is none of the words allowed: the nearest of them, if one is near."""
    close = get_close_matches(str(value), words_of(kind), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def words_of(kind: Any) -> list[str]:
    """The words that are values of a type.

    >>> words_of(int | Literal["published"])
    ['published']
    """
    return [word for option in _options(kind) if get_origin(option) is Literal for word in get_args(option)]


def may_be_none(kind: Any) -> bool:
    """Whether None is among the values of a type."""
    return type(None) in get_args(kind)


def _text_as(option: Any, text: str) -> Any:
    if get_origin(option) is list:
        return _all(_text_as(get_args(option)[0], word.strip()) for word in text.split(","))
    if get_origin(option) is Literal:
        return text if text in get_args(option) else None
    if option is int:
        return int(text) if _WHOLE.fullmatch(text) else None
    if option is float:
        return _finite(float(text)) if _NUMBER.fullmatch(text) else None
    return text or None


def _yaml_as(option: Any, value: Any) -> Any:
    if get_origin(option) is list:
        items = value if isinstance(value, list) else str(value).split(",")
        return _all(_yaml_as(get_args(option)[0], item) for item in items)
    # Before numbers: in Python True is the number 1.
    if isinstance(value, bool) or option is bool:
        return value if isinstance(value, bool) and option is bool else None
    if get_origin(option) is Literal:
        return value if isinstance(value, str) and value in get_args(option) else None
    if option is float:
        return _finite(float(value)) if isinstance(value, int | float) else None
    if option is int:
        return value if isinstance(value, int) else None
    if isinstance(value, int):  # `precision: 32`
        return str(value)
    return value if isinstance(value, str) and value else None


def _options(kind: Any) -> list[Any]:
    """The types that a value may have, in the order in which they are tried."""
    # Text last, since everything can be read as text.
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return sorted((option for option in options if option is not type(None)), key=lambda option: option is str)


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _all(values: Iterable[Any]) -> list[Any] | None:
    items = list(values)
    return None if None in items else items


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
