"""Figures out of saved results, and how they look as text: one rule for digits, one minus sign, a dash for nothing."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lightning_icl.measures import Figure

Interval = tuple[float, float]


def value_of(figure: Figure, results: Mapping[str, Any]) -> float | None:
    """A figure in the unit it is shown in; None where it is undefined or missing."""
    # Missing levels and keys are both "undefined": other versions measured other things.
    return in_unit(figure, (results.get(figure.measure.level) or {}).get(figure.key))


def in_unit(figure: Figure, value: float | None) -> float | None:
    """A saved value in the unit it is shown in."""
    return None if value is None else _scale(figure) * float(value)


def interval_of(figure: Figure, results: Mapping[str, Any]) -> Interval | None:
    """The 95% interval of a figure in the unit it is shown in; None where there is none."""
    return interval_in(figure, results.get("intervals") or {})


def interval_in(figure: Figure, intervals: Mapping[str, Any]) -> Interval | None:
    """The same from a part of `results.json` that holds intervals by dotted name."""
    ends = intervals.get(figure.path)
    # One undefined end leaves no interval.
    if not ends or None in ends:
        return None
    return _scale(figure) * float(ends[0]), _scale(figure) * float(ends[1])


def _scale(figure: Figure) -> float:
    return 100.0 if figure.measure.percent else 1.0


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is defined; None for nothing.

    >>> mean([1.0, None, 2.0])
    1.5
    """
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else None


def mean_interval(values: Sequence[float | None], intervals: Sequence[Interval | None]) -> Interval | None:
    """The 95% interval of a mean over tasks, which are taken as fixed and independent; None where one is unknown.

    It reaches as far as the root of the tasks' summed squared reaches, each side for itself (Zou and Donner, 2008).

    >>> mean_interval([5.0, 7.0], [(2.0, 9.0), (3.0, 10.0)])
    (3.5, 8.5)
    """
    pairs = [(value, ends) for value, ends in zip(values, intervals, strict=True) if value is not None]
    if not pairs or any(ends is None for _, ends in pairs):
        return None
    middle = fmean(value for value, _ in pairs)
    # Each side for itself: intervals of shares are not symmetrical.
    down = math.hypot(*(value - ends[0] for value, ends in pairs if ends)) / len(pairs)
    up = math.hypot(*(ends[1] - value for value, ends in pairs if ends)) / len(pairs)
    return middle - down, middle + up


def shown(figure: Figure, value: float | None) -> str:
    """A value as text: percent with one decimal, other measures with three, a dash for none."""
    return "–" if value is None else _minus(value, 1 if figure.measure.percent else 3)


def signed(figure: Figure, difference: float | None) -> str:
    """A difference with its sign, in the digits of its figure."""
    text = shown(figure, difference)
    # Rounded to zero, a difference has no sign.
    return f"+{text}" if difference is not None and difference > 0 and text.strip("0.") else text


def interval_shown(figure: Figure, interval: Interval | None) -> str:
    """An interval as text, of percentages in whole ones: queries are too few for more. Empty for none.

    >>> from lightning_icl.measures import FIGURES
    >>> interval_shown(FIGURES[3], (51.01, 100.0))
    '51–100'
    """
    if interval is None:
        return ""
    low, high = (_minus(end, 0 if figure.measure.percent else 3) for end in interval)
    # With a minus sign in it, a dash between two numbers would be hard to read.
    return f"{low}–{high}" if interval[0] >= 0 else f"{low} to {high}"


def _minus(value: float, digits: int) -> str:
    """A number with a minus sign as people write it, and none before zero.

    >>> _minus(-0.0004, 3), _minus(-0.25, 2)
    ('0.000', '−0.25')
    """
    text = f"{value:.{digits}f}"
    # -0.0004 rounds to "-0.000", which is zero.
    return text.replace("-", "−" if text.strip("-0.") else "")
