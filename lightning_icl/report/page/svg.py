"""Charts as SVG text: pure functions from numbers to marks, coloured by the page's style sheet alone.

Classes name what a mark is (`main`, `baseline`, `positive`, …); `page.css` gives each its colour in light and dark.
"""

import math
from collections.abc import Sequence
from html import escape

from lightning_icl.report.layers import Curve, Values
from lightning_icl.report.strokes import Strokes

_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 8.0, 8.0, 30.0


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that span a range: steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * count >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def extent(curves: Sequence[Curve], floor: float | None = 0.0) -> tuple[float, float]:
    """Smallest and largest finite value of curves and bands, and `floor` with them."""
    values = [value for curve in curves for value in (*curve.values, *(curve.upper or ())) if value is not None]
    values += [floor] if floor is not None else []
    return (min(values), max(values)) if values else (0.0, 1.0)


def line_chart(
    curves: Sequence[Curve],
    title: str,
    *,
    strokes: Strokes | None = None,
    span: tuple[float, float] | None = None,
    x_label: str = "layer",
    first: int = 0,
    width: float = 320.0,
    height: float = 200.0,
) -> str:
    """Curves over whole numbers; bands where a curve has an upper edge, gaps where a value is missing.

    Args:
        curves: what to draw.
        title: read out by screen readers.
        strokes: how curves of controls look, shared by all charts of a legend; not needed where there are none.
        span: smallest and largest value on the vertical axis; that of the curves without.
        x_label: below the horizontal axis.
        first: number of the first point.
        width, height: in user units; the page scales the chart.
    """
    marks = ticks(*(span or extent(curves)))
    low, high = marks[0], marks[-1] if marks[-1] > marks[0] else marks[0] + 1
    points = max((len(curve.values) for curve in curves), default=1)
    inner = width - _LEFT - _RIGHT

    def x(number: float) -> float:
        return _LEFT + inner * (number / (points - 1) if points > 1 else 0.5)

    def y(value: float) -> float:
        return _TOP + (height - _TOP - _BOTTOM) * (high - value) / (high - low)

    parts = [_open(width, height, title)]
    for mark in marks:
        name = "zero" if mark == 0 else "grid"
        parts.append(f'<path class="{name}" d="M{_LEFT:g} {y(mark):.1f}H{width - _RIGHT:g}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 5:g}" y="{y(mark) + 3.5:.1f}" text-anchor="end">{mark:g}</text>')
    for number in _whole_ticks(points):
        parts.append(
            f'<text class="tick" x="{x(number):.1f}" y="{height - 16:g}" text-anchor="middle">{number + first}</text>'
        )
    parts.append(
        f'<text class="axis" x="{_LEFT + inner / 2:g}" y="{height - 3:g}" text-anchor="middle">{escape(x_label)}</text>'
    )
    strokes = strokes or Strokes(())
    # Bands first, the main curve last, so that nothing covers it.
    for curve in sorted(curves, key=lambda curve: _DEPTH[curve.role]):
        name = strokes.name(curve)
        dot = strokes.of(curve).dot
        parts.append(_band(curve, name, x, y) if curve.upper else _curve(curve, name, x, y, first, x_label, dot))
    return "".join([*parts, "</svg>"])


_DEPTH = {"control": 0, "baseline": 1, "seed": 1, "form": 2, "published": 3, "main": 4}


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Stretches without a gap."""
    found: list[list[tuple[int, float]]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            found.append([])
        else:
            found[-1].append((number, value))
    return [stretch for stretch in found if stretch]


def _curve(curve: Curve, name: str, x, y, first: int, x_label: str, dot: float) -> str:  # type: ignore[no-untyped-def]
    stretches = _runs(curve.values)
    path = "".join("M" + "L".join(f"{x(number):.1f} {y(value):.1f}" for number, value in run) for run in stretches)
    dots = "".join(
        f'<circle cx="{x(number):.1f}" cy="{y(value):.1f}" r="{dot:g}">'
        f"<title>{escape(curve.label)}, {x_label} {number + first}: {value:.3f}</title></circle>"
        for run in stretches
        for number, value in run
        if dot
    )
    return f'<g class="curve {name}"><path d="{path}"/>{dots}</g>'


def _band(curve: Curve, name: str, x, y) -> str:  # type: ignore[no-untyped-def]
    both = [pair if None not in pair else None for pair in zip(curve.values, curve.upper or (), strict=True)]
    path = ""
    for run in _runs([None if pair is None else 0.0 for pair in both]):
        edge = [(number, both[number]) for number, _ in run]
        there = [f"{x(number):.1f} {y(pair[1]):.1f}" for number, pair in edge if pair]
        back = [f"{x(number):.1f} {y(pair[0]):.1f}" for number, pair in reversed(edge) if pair]
        path += "M" + "L".join((*there, *back)) + "Z"
    return f'<g class="band {name}"><path d="{path}"/><title>{escape(curve.label)}</title></g>'


def _whole_ticks(points: int) -> list[int]:
    step = max(1, math.ceil(points / 8))
    step = next(size for size in (1, 2, 4, 5, 8, 10, 20, 50, 100, 1000) if size >= step or size == 1000)
    return list(range(0, points, step))


def heat_map(values: Sequence[Values], title: str, *, rows: str = "layer", columns: str = "head") -> str:
    """Rows of cells, the first at the bottom; strength is opacity, so that the page's ground shows through at 0.

    Args:
        values: (row, column), between -1 and 1; None leaves the ground hatched.
        title: said to those who hear the page.
        rows, columns: what the axes count.
    """
    high, wide = len(values), max((len(row) for row in values), default=0)
    size = max(4.0, min(26.0, 270.0 / max(wide, 1), 340.0 / max(high, 1)))
    left, top, width = 34.0, 4.0, 34.0 + size * wide + 6
    height = top + size * high + 32
    parts = [_open(max(width, 110.0), height, title), f'<g transform="translate({left:g} {top:g}) scale({size:.4g})">']
    parts.append(f'<rect class="ground" width="{wide}" height="{high}"/>')
    for row, cells in enumerate(values):
        for column, value in enumerate(cells):
            text = f"{rows} {row}, {columns} {column}: {'undefined' if value is None else f'{value:.3f}'}"
            kind = "missing" if value is None else "negative" if value < 0 else "positive"
            strength = 1.0 if value is None else min(1.0, abs(value))
            parts.append(
                f'<rect class="{kind}" x="{column}" y="{high - 1 - row}" width="1" height="1" '
                f'fill-opacity="{strength:.2g}"><title>{text}</title></rect>'
            )
    parts.append("</g>")
    for row in _whole_ticks(high):
        at = top + size * (high - row - 0.5) + 3.5
        parts.append(f'<text class="tick" x="{left - 5:g}" y="{at:.1f}" text-anchor="end">{row}</text>')
    for column in _whole_ticks(wide):
        at = left + size * (column + 0.5)
        parts.append(f'<text class="tick" x="{at:.1f}" y="{height - 18:.1f}" text-anchor="middle">{column}</text>')
    parts.append(
        f'<text class="axis" x="{left + size * wide / 2:.1f}" y="{height - 4:.1f}" text-anchor="middle">'
        f"{escape(columns)}</text>"
    )
    middle = top + size * high / 2
    parts.append(
        f'<text class="axis" transform="translate(10 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(rows)}</text></svg>"
    )
    return "".join(parts)


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.4g} {height:.4g}" style="max-width:{1.25 * width:.4g}px" role="img" '
        f'aria-label="{escape(title)}">'
    )
