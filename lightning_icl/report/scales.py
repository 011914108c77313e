"""Axes: round numbers that span what is drawn."""

import math
from collections.abc import Iterable, Sequence

from lightning_icl.report.layers import Curve

# Rounding of a cosine of 1: the axis does not reach beyond it for that.
_ROUNDING = 1e-6


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that span a range: steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(0.0, 1.00000001)[-1]
    1.0
    """
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    # The first round step that gives at most `count` of them.
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * count >= span * 0.999)
    # A hair in, so that 1.00000001 does not add a step.
    first, last = math.floor(low / step + _ROUNDING), math.ceil(high / step - _ROUNDING)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def extent(curves: Iterable[Curve]) -> tuple[float, float]:
    """Smallest and largest value of curves and bands, and 0 with them."""
    values = [value for curve in curves for value in (*curve.values, *(curve.upper or ())) if value is not None]
    # Zero belongs on the axis of a similarity, wherever the values are.
    return (min(0.0, *values), max(0.0, *values)) if values else (0.0, 1.0)


def whole_ticks(points: int) -> list[int]:
    """At most about eight of the numbers from 0 on, evenly apart."""
    step = max(1, math.ceil(points / 8))
    # Steps that people count in.
    step = next((size for size in (1, 2, 4, 5, 8, 10, 20, 50, 100) if size >= step), step)
    return list(range(0, points, step))


def decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten that a logarithmic axis reaches from and to, at least one apart.

    >>> decades([2e6, 1.3e9])
    (6, 10)
    """
    # At least one decade: one power alone has no length.
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def size_word(power: int) -> str:
    """A power of ten of parameters, in the words people use for models.

    >>> size_word(8), size_word(5)
    ('100M', '1e5')
    """
    words = {6: "1M", 7: "10M", 8: "100M", 9: "1B", 10: "10B", 11: "100B"}
    return words.get(power, f"1e{power}")
