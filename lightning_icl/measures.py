"""Every figure that is measured, once: where `results.json` holds it, what it is called, how it is shown and read.

Tables, controls, curves, pages, checks, sweeps and flags read this table and name no figure themselves, so that a new
measure is shown everywhere once it stands here (CONTRIBUTING.md lists what else it needs).
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["main", "form", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Something measured at one level, in one or several figures."""

    level: str
    """Its part of `results.json`."""
    name: str
    """What it is called."""
    title: str
    """Its name with what it measures."""
    reading: str
    """How its figures are to be read, in one or two sentences."""
    tolerance: float
    """How far a repetition may be from a published figure, in the unit shown."""
    percent: bool = False
    """Whether the saved share is shown in percent."""

    @property
    def table(self) -> str:
        """Its name as `--tables` takes it."""
        return self.level.replace("_", "")


@dataclass(frozen=True)
class Figure:
    """One number of a measure, and its values over layers and heads where it has them. More is better or more alike."""

    measure: Measure
    key: str
    """Its name in the measure's part of `results.json`; `value` is what the paper claims."""
    label: str
    """What its row in a table is called; empty for a figure that has curves alone."""
    role: Role = "main"
    """`main`: what is claimed; `form`: the same in another form; `baseline`: what to compare it with."""
    column: str = ""
    """What its column is called where controls or models stand below one another; empty for none."""
    published: bool = False
    """Whether the paper's tables have it."""
    curve: str = ""
    """What its line over layers is called; empty for none."""
    published_curve: str = ""
    """What the published values over layers are called; empty for none."""
    by_head: bool = False
    """Whether it has a value for each head too."""
    count: str = ""
    """Beside it in `results.json`, the number of queries that it is a share of, where that is not all of them."""
    counts: str = ""
    """What these queries are."""

    @property
    def path(self) -> str:
        """Its dotted name, as intervals, paired tests and reasons use it."""
        return f"{self.measure.level}.{self.key}"

    @property
    def name(self) -> str:
        """Its name as one word, as sweeps and published tables use it: `kendall`, `kendall_random`."""
        return self.measure.level if self.key == "value" else f"{self.measure.level}_{self.key}"

    @property
    def per_layer(self) -> str:
        """Where its values over layers are, beside it in `results.json`."""
        return "per_layer" if self.key == "value" else f"{self.key}_per_layer"

    @property
    def per_head(self) -> str:
        """Where its values over layers and heads are."""
        return "per_head" if self.key == "value" else f"{self.key}_per_head"

    @property
    def indented(self) -> bool:
        """Whether its row stands below that of the measure, which it is to be compared with."""
        return self.role != "main"


_ACCURACY = Measure(
    level="accuracy",
    name="accuracy",
    title="Accuracy",
    reading="How many queries are answered rightly.",
    tolerance=2.0,
    percent=True,
)
_REC2FTP = Measure(
    level="rec2ftp",
    name="Rec2FTP",
    title="Rec2FTP: recall to fine-tuning predictions",
    reading="Of the queries that fine-tuning corrects, the share that the prompt corrects too. A prompt that corrects "
    "every query has 100 whatever fine-tuning does.",
    tolerance=5.0,
    percent=True,
)
_SIM_AOU = Measure(
    level="sim_aou",
    name="SimAOU",
    title="SimAOU: similarity of attention-output updates",
    reading="Do ICL and FT move the attention output the same way? 1 is the same direction, 0 is unrelated.",
    tolerance=0.02,
)
_SIM_AM = Measure(
    level="sim_am",
    name="SimAM",
    title="SimAM: similarity of attention maps",
    reading="Do ICL and FT look at the query's own tokens alike? Compare with how alike ICL and zero-shot are.",
    tolerance=0.02,
)
_KENDALL = Measure(
    level="kendall",
    name="Kendall",
    title="Kendall rank correlation of attention to training tokens",
    reading="Do ICL and FT rank the tokens of the demonstrations alike? 1 is the same order, 0 is unrelated.",
    tolerance=0.02,
)

FIGURES = (
    Figure(_ACCURACY, "zsl", "ZSL accuracy", column="ZSL acc.", published=True),
    Figure(_ACCURACY, "ft", "FT accuracy", column="FT acc.", published=True),
    Figure(_ACCURACY, "icl", "ICL accuracy", column="ICL acc.", published=True),
    Figure(_ACCURACY, "icl_calibrated", "calibrated", "form"),
    Figure(_ACCURACY, "majority", "majority class", "baseline"),
    Figure(
        _REC2FTP, "value", "Rec2FTP",
        column="Rec2FTP", published=True, count="corrected_by_ft", counts="corrected by FT",
    ),
    Figure(_SIM_AOU, "value", "SimAOU", column="SimAOU", published=True, curve="SimAOU", published_curve="sim_aou"),
    Figure(_SIM_AOU, "random", "random", "baseline", published=True, curve="random"),
    Figure(_SIM_AOU, "raw", "raw", "form", column="raw", curve="raw"),
    Figure(_SIM_AM, "value", "SimAM", column="SimAM", published=True, curve="ICL and FT", by_head=True),
    Figure(_SIM_AM, "zsl", "zero-shot", "baseline", published=True, curve="ICL and ZSL", by_head=True),
    Figure(
        _SIM_AM, "difference", "difference", "form",
        column="difference", curve="differences", published_curve="sim_am_difference", by_head=True,
    ),
    Figure(_KENDALL, "value", "Kendall", column="Kendall", published=True, curve="tokens"),
    Figure(_KENDALL, "example", "", "form", curve="demonstrations"),
    Figure(_KENDALL, "random", "random", "baseline", published=True, curve="random"),
)  # fmt: skip


def measures() -> tuple[Measure, ...]:
    """All measures, in the order of the tables."""
    return tuple(dict.fromkeys(figure.measure for figure in FIGURES))


def table_names() -> tuple[str, ...]:
    """What `--tables` takes."""
    return tuple(measure.table for measure in measures())


def table_figures() -> tuple[Figure, ...]:
    """Figures that have a row in a table."""
    return tuple(figure for figure in FIGURES if figure.label)


def column_figures() -> tuple[Figure, ...]:
    """Figures that have a column where controls or models stand below one another."""
    return tuple(figure for figure in FIGURES if figure.column)


def compared() -> tuple[Figure, ...]:
    """What compares in-context learning with fine-tuning: the `value` of every measure that has one."""
    return tuple(figure for figure in FIGURES if figure.key == "value")


def compared_levels() -> tuple[str, ...]:
    """The parts of `results.json` that need a fine-tuning."""
    return tuple(figure.measure.level for figure in compared())


def curve_figures(level: str) -> tuple[Figure, ...]:
    """Figures of a measure that have a line over layers: what is claimed, its other forms, its baselines."""
    # Drawn and listed in this order, whatever the order of the table.
    order: list[Role] = ["main", "form", "baseline"]
    lines = [figure for figure in FIGURES if figure.curve and figure.measure.level == level]
    return tuple(sorted(lines, key=lambda figure: order.index(figure.role)))


def layered() -> tuple[Measure, ...]:
    """Measures that have lines over layers."""
    return tuple(measure for measure in measures() if curve_figures(measure.level))


def head_figures() -> tuple[Figure, ...]:
    """Figures that have a value for each head."""
    return tuple(figure for figure in FIGURES if figure.by_head)
