"""Charts as data for the templates: where each mark stands. Colours are the style sheet's, by the names of classes."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lightning_icl.measures import Figure
from lightning_icl.report.figures import interval_shown, shown
from lightning_icl.report.forest import ForestRow
from lightning_icl.report.layers import Curve, Values
from lightning_icl.report.scales import decades, extent, size_word, ticks, whole_ticks
from lightning_icl.report.side_by_side import SizePoint
from lightning_icl.report.strokes import Strokes
from lightning_icl.report.sweep import OverRates

_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 8.0, 8.0, 30.0
# Bands first, the main curve last, so that nothing covers it.
_DEPTH = {"control": 0, "baseline": 1, "seed": 1, "form": 2, "published": 3, "main": 4}
Place = Callable[[float], float]


class Tick(NamedTuple):
    """A mark on an axis."""

    at: float
    text: str
    zero: bool = False


class Dot(NamedTuple):
    """A mark of a value, and the words that a pointer over it shows."""

    x: float
    y: float
    text: str


class Line(NamedTuple):
    """A curve as a path, or a band between two."""

    name: str
    """Its class."""
    label: str
    path: str
    dots: list[Dot]
    radius: float
    band: bool


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Curves over whole numbers, or points over a logarithmic axis."""

    title: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    width: float = 320.0
    height: float = 200.0
    left: float = _LEFT
    right: float = _RIGHT


def rate_chart(over: OverRates) -> LineChart:
    """A figure over learning rates, on a logarithmic axis: every run a point, their means a line, the choice marked."""
    low, high = decades(over.rates)
    values = [value for _, value in over.seeds]
    ends = [*values, *over.levels.values(), 0.0]
    marks = ticks(min(ends), max(ends))
    # Widths are fixed in user units and scaled by the page.
    x, y = _across(low, high), _down(marks)
    # Rates at which every run diverged have no mean.
    points = [(rate, value) for rate, value in zip(over.rates, over.means, strict=True) if value is not None]
    path = "M" + "L".join(f"{x(math.log10(rate)):.1f} {y(value):.1f}" for rate, value in points) if points else ""
    lines = [
        # The main line first, so that the legend names it first.
        Line("main", "mean over seeds", path, _rate_dots(points, over, x, y, "mean"), 2.4, False),
        Line("seed", "each run", "", _rate_dots(over.seeds, over, x, y, "one run"), 1.8, False),
    ]
    for name, label in zip(("form", "baseline"), over.levels, strict=False):
        # A level that does not depend on the rate is a line across.
        line = f"M{x(low):.1f} {y(over.levels[label]):.1f}H{x(high):.1f}"
        lines.append(Line(name, label, line, [], 0.0, False))
    if over.chosen is not None:
        place = f"M{x(math.log10(over.chosen)):.1f} {_TOP:g}V{200.0 - _BOTTOM:g}"
        lines.append(Line("published", "chosen rate", place, [], 0.0, False))
    return LineChart(
        title=over.figure.column,
        x_label="learning rate",
        x_ticks=[Tick(x(power), f"{10.0**power:g}") for power in range(low, high + 1)],
        y_ticks=_y_ticks(marks, y),
        lines=lines,
    )


def _rate_dots(points: Iterable[tuple[float, float]], over: OverRates, x: Place, y: Place, what: str) -> list[Dot]:
    return [
        Dot(x(math.log10(rate)), y(value), f"rate {rate:g}, {what}: {shown(over.figure, value)}")
        for rate, value in points
    ]


class Bar(NamedTuple):
    """A row of a forest plot."""

    name: str
    y: float
    x: float
    low: float | None
    high: float | None
    own: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class ForestChart:
    """Values with intervals below one another; a line through the first."""

    title: str
    ticks: list[Tick]
    bars: list[Bar]
    height: float
    width: float = 380.0
    left: float = 140.0


class Cell(NamedTuple):
    """A field of a heat map."""

    row: int
    column: int
    kind: str
    strength: float
    text: str


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Rows of cells, the first at the bottom."""

    title: str
    cells: list[Cell]
    high: int
    wide: int
    size: float
    """Of a cell, in user units."""
    rows: str
    columns: str

    @property
    def row_ticks(self) -> list[int]:
        """Numbers of the rows that are told."""
        return whole_ticks(self.high)

    @property
    def column_ticks(self) -> list[int]:
        """Numbers of the columns that are told."""
        return whole_ticks(self.wide)


def line_chart(
    curves: Sequence[Curve],
    title: str,
    *,
    strokes: Strokes | None = None,
    span: tuple[float, float] | None = None,
    x_label: str = "layer",
    first: int = 0,
) -> LineChart:
    """Curves over whole numbers; bands where a curve has an upper edge, gaps where a value is missing.

    Args:
        curves: what to draw.
        title: read out by screen readers.
        strokes: how curves of controls look, shared by all charts of a legend; not needed where there are none.
        span: smallest and largest value on the vertical axis; that of the curves without.
        x_label: below the horizontal axis.
        first: number of the first point.
    """
    marks = ticks(*(span or extent(curves)))
    # The longest curve sets the axis; a model of fewer layers ends early.
    points = max((len(curve.values) for curve in curves), default=1)
    # A single point stands in the middle.
    x = _across(0.0, max(points - 1, 1)) if points > 1 else _across(-1.0, 1.0)
    y, strokes = _down(marks), strokes or Strokes(())
    # Drawn in this order, so that the main curve is on top.
    in_order = sorted(curves, key=lambda curve: _DEPTH[curve.role])
    return LineChart(
        title=title,
        x_label=x_label,
        x_ticks=[Tick(x(number), str(number + first)) for number in whole_ticks(points)],
        y_ticks=_y_ticks(marks, y),
        lines=[_line(curve, strokes, x, y, lambda number: f"{x_label} {number + first}") for curve in in_order],
    )


def _across(low: float, high: float) -> Place:
    return lambda value: _LEFT + (320.0 - _LEFT - _RIGHT) * (value - low) / (high - low)


def _down(marks: Sequence[float]) -> Place:
    low, high = marks[0], marks[-1]
    return lambda value: _TOP + (200.0 - _TOP - _BOTTOM) * (high - value) / (high - low)


def _y_ticks(marks: Sequence[float], y: Place) -> list[Tick]:
    return [Tick(y(mark), f"{mark:g}".replace("-", "−"), mark == 0) for mark in marks]


def _line(curve: Curve, strokes: Strokes, x: Place, y: Place, name_point: Callable[[int], str]) -> Line:
    # A gap ends a path: a line across it would invent values.
    stretches = list(_stretches(curve.values))
    radius = strokes.of(curve).dot
    dots = [
        Dot(x(number), y(value), f"{curve.label}, {name_point(number)}: {value:.3f}")
        for stretch in stretches
        for number, value in stretch
        if radius and curve.upper is None
    ]
    path = (
        # A band follows its upper edge and comes back along the lower one.
        _band_path(curve.values, curve.upper, x, y) if curve.upper else "".join(_path(part, x, y) for part in stretches)
    )
    return Line(strokes.name(curve), curve.label, path, dots, radius, curve.upper is not None)


def _path(points: Iterable[tuple[int, float]], x: Place, y: Place) -> str:
    return "M" + "L".join(f"{x(number):.1f} {y(value):.1f}" for number, value in points)


def _band_path(lower: Values, upper: Values, x: Place, y: Place) -> str:
    """There along the upper edge, back along the lower one."""
    # Where one edge is missing there is no band.
    whole = [None if low is None or high is None else low for low, high in zip(lower, upper, strict=True)]
    path = ""
    for stretch in _stretches(whole):
        edge = [(number, value) for number, _ in stretch if (value := upper[number]) is not None]
        path += _path([*edge, *reversed(stretch)], x, y) + "Z"
    return path


def _stretches(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    """Runs of values without a gap."""
    stretch: list[tuple[int, float]] = []
    for number, value in enumerate(values):
        if value is not None:
            stretch.append((number, value))
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def size_chart(points: Sequence[SizePoint], title: str) -> LineChart:
    """Parameters, on a logarithmic axis, against a measure, with standard errors over seeds."""
    low, high = decades([point.parameters for point in points])
    # Error bars belong to what the axis must hold.
    ends = [point.spread.mean + sign * (point.spread.standard_error or 0.0) for point in points for sign in (-1, 1)]
    marks = ticks(min(0.0, *ends), max(0.0, *ends))
    x, y = _across(low, high), _down(marks)
    bars, dots = "", []
    for point in points:
        place, value, error = x(math.log10(point.parameters)), point.spread.mean, point.spread.standard_error
        text = f"{point.label}: {value:.3f}"
        if error:
            bars += f"M{place:.1f} {y(value - error):.1f}V{y(value + error):.1f}"
            text += f" ± {error:.3f} over {point.spread.count} seeds"
        dots.append(Dot(place, y(value), text))
    return LineChart(
        title=title,
        x_label="parameters",
        x_ticks=[Tick(x(power), size_word(power)) for power in range(low, high + 1)],
        y_ticks=_y_ticks(marks, y),
        lines=[Line("main", title, bars, dots, 4.0, False)],
    )


def forest_chart(figure: Figure, rows: Sequence[ForestRow]) -> ForestChart:
    """The run and its controls, each with its 95% interval.

    Args:
        figure: what is shown.
        rows: the run first.
    """
    ends = [end for row in rows for end in (row.value, *(row.interval or ()))]
    # Zero is always on the axis: a difference from it is what counts.
    marks = ticks(min(0.0, *ends), max(0.0, *ends))
    chart = ForestChart(title=figure.measure.title, ticks=[], bars=[], height=_TOP + 18.0 * len(rows) + 22.0)

    def x(value: float) -> float:
        return chart.left + (chart.width - chart.left - 14.0) * (value - marks[0]) / (marks[-1] - marks[0])

    chart.ticks.extend(Tick(x(mark), f"{mark:g}".replace("-", "−"), mark == 0) for mark in marks)
    for number, row in enumerate(rows):
        text = f"{row.name}: {shown(figure, row.value)} {interval_shown(figure, row.interval)}".strip()
        low, high = (None, None) if row.interval is None else map(x, row.interval)
        chart.bars.append(Bar(row.name, _TOP + 18.0 * number + 9.0, x(row.value), low, high, row.own, text))
    return chart


def heat_map(values: Sequence[Values], title: str, *, columns: str = "head") -> HeatMap:
    """Cells whose strength is their opacity, so that the page's ground shows through at 0.

    Args:
        values: (row, column), between -1 and 1; None leaves the ground hatched.
        title: read out by screen readers.
        columns: what they count; rows are layers.
    """
    high, wide = len(values), max((len(row) for row in values), default=0)
    cells = [
        _cell(row, column, value, f"layer {row}, {columns} {column}: ")
        for row, line in enumerate(values)
        for column, value in enumerate(line)
    ]
    # Between a size that can be pointed at and one that fits the page.
    size = max(4.0, min(26.0, 270.0 / max(wide, 1), 340.0 / max(high, 1)))
    return HeatMap(title=title, cells=cells, high=high, wide=wide, size=size, rows="layer", columns=columns)


def _cell(row: int, column: int, value: float | None, place: str) -> Cell:
    if value is None:
        return Cell(row, column, "missing", 1.0, f"{place}undefined")
    return Cell(row, column, "negative" if value < 0 else "positive", min(1.0, abs(value)), f"{place}{value:.3f}")
