"""How a curve looks, on the page and in pictures alike: one table, and one colour for each control in all charts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_icl.report.layers import Curve, Role, control_groups
from lightning_icl.results import TaskRun


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """The line of a curve, or the edge colour of a band."""

    light: str
    """Colour on a light ground, also in pictures."""
    dark: str
    """Colour on a dark ground."""
    width: float = 1.6
    """Of the line, in user units of the page's charts."""
    dash: tuple[float, ...] = ()
    """Lengths of strokes and gaps; empty for an unbroken line."""
    dot: float = 2.4
    """Radius of the mark at each layer; 0 for none."""


ROLES: dict[Role, Stroke] = {
    "main": Stroke(light="#1f5fbf", dark="#7db0ff", width=2.4),
    "seed": Stroke(light="#9db9e3", dark="#3f5f94", width=0.8, dot=0.0),
    "form": Stroke(light="#c2570c", dark="#f2a15c"),
    "baseline": Stroke(light="#5b6470", dark="#9aa4b1", dash=(5, 3)),
    "published": Stroke(light="#1b1f24", dark="#e6e8eb", dash=(2, 3), dot=1.5),
}
# None of these is a colour of ours; after eight the dashes change, so that 24 controls can be told apart.
_COLOURS = (
    ("#8d3fa8", "#cf93e4"), ("#8a6d00", "#d8bd4c"), ("#a83268", "#ee8fb8"),
    ("#4d7c0f", "#a8d46b"), ("#0e7490", "#67cfe6"), ("#7c4a2d", "#d1a184"),
    ("#c42323", "#ff8f8a"), ("#0f766e", "#5fd3c4"),
)  # fmt: skip
_DASHES: tuple[tuple[float, ...], ...] = ((), (7, 2.5), (1.5, 2.5))
CONTROLS = tuple(
    Stroke(light=light, dark=dark, width=1.2, dash=dash, dot=1.7) for dash in _DASHES for light, dark in _COLOURS
)


class Strokes:
    """Which stroke each curve of some runs has: the same control has the same one in every chart, whichever lack it.

    Args:
        runs: all tasks, and all seeds, whose charts share a legend.
    """

    def __init__(self, runs: Iterable[TaskRun]) -> None:
        families: dict[str, None] = {}
        for run in runs:
            families |= dict.fromkeys(control_groups(run.results.get("controls") or {}))
        self.places: Mapping[str, int] = {family: place % len(CONTROLS) for place, family in enumerate(families)}

    def name(self, curve: Curve) -> str:
        """The class that the page's style sheet gives the stroke to."""
        return f"control-{self.places[curve.family]}" if curve.role == "control" else curve.role

    def of(self, curve: Curve) -> Stroke:
        """The stroke itself."""
        return CONTROLS[self.places[curve.family]] if curve.role == "control" else ROLES[curve.role]


def legend_of(charts: Iterable[Iterable[Curve]]) -> list[Curve]:
    """One curve for each name that any of the charts draws, in order of first use."""
    named: dict[str, Curve] = {}
    for curves in charts:
        for curve in curves:
            named.setdefault(curve.label, curve)
    return list(named.values())


def style_rules() -> str:
    """The table as a style sheet: a rule for each class that `Strokes.name` gives."""
    named = [*ROLES.items(), *((f"control-{place}", stroke) for place, stroke in enumerate(CONTROLS))]
    return "\n".join(_rule(name, stroke) for name, stroke in named)


def _rule(name: str, stroke: Stroke) -> str:
    dash = " ".join(f"{length:g}" for length in stroke.dash) or "none"
    return (
        f".{name} {{ --stroke: light-dark({stroke.light}, {stroke.dark}); }} "
        f".curve.{name} path {{ stroke-width: {stroke.width:g}; stroke-dasharray: {dash}; }}"
    )


def plot_style(stroke: Stroke) -> dict[str, Any]:
    """The stroke in matplotlib's words; widths and dashes are as on the page, whose charts are 1.6 times as large."""
    # Charts of the page are 1.6 times as large as pictures, so widths are smaller here.
    return {
        "color": stroke.light,
        "linewidth": stroke.width / 1.6,
        "linestyle": (0, tuple(length / stroke.width for length in stroke.dash)) if stroke.dash else "-",
        "marker": "o" if stroke.dot else "",
        "markersize": 1.25 * stroke.dot,
    }
