"""The course of every training in one picture: losses, answers, held-out perplexity, and what η and gates become."""

import csv
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.momentum.settings import ExperimentSettings, model_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS, _IN_A_ROW = 60, 3
_SINGLE_BATCHES = ("loss", "answer_accuracy")  # too rough to be drawn as they are
_PANELS = {
    "loss": "loss (nats per token)",
    "answer_accuracy": "answers right in few-shot documents",
    "validation_perplexity": "held-out perplexity (logarithmic)",
    "eta_mean": "η, mean and range over heads",
    "gate_mean": "gate, mean and range over heads",
}


class Course(NamedTuple):
    """The log of a training."""

    name: str
    rows: list[tuple[float, dict[str, str]]]
    """What was logged, after how many millions of tokens."""

    def points(self, column: str) -> list[tuple[float, float]]:
        """Millions of tokens read, and the column's value, where it has one."""
        return [(tokens, float(row[column])) for tokens, row in self.rows if row.get(column)]


def courses(settings: ExperimentSettings, out: Path) -> list[Course]:
    """Of the first seed of every kind of attention; with what was trained before, where models are trained further."""
    found = []
    for variant in settings.variants:
        seed, rows = variant.seeds[0], list[tuple[float, dict[str, str]]]()
        first = settings.first_model(variant, seed)
        for folder in filter(None, (first, model_folder(out, variant.name, seed))):
            rows += logged(folder, after=rows[-1][0] if rows else 0.0)
        found.append(Course(f"{variant.name}, seed {seed}", rows))
    return found


def logged(folder: Path, after: float) -> list[tuple[float, dict[str, str]]]:
    """The log of a finished model: millions of tokens read, from those before on, and what was logged then."""
    made = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    rows = csv.DictReader((folder / "training_log.csv").read_text(encoding="utf-8").splitlines())
    per_step = made["batch"] * made["block"] / 1e6
    return [(after + (int(row["step"]) + 1) * per_step, row) for row in rows]


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of as many neighbours as leave some sixty points; the last few that fill no window are left out.

    >>> smoothed([(1.0, 4.0), (2.0, 6.0)])
    [(1.0, 4.0), (2.0, 6.0)]
    """
    width = max(1, len(points) // _POINTS)
    windows = [points[start : start + width] for start in range(0, len(points) - width + 1, width)]
    return [(window[-1][0], sum(value for _, value in window) / width) for window in windows]


def draw_training(settings: ExperimentSettings, out: Path) -> Path:
    """Draw `training.png`, a panel for each figure that any training has logged, over tokens read."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, ScalarFormatter

    drawn = courses(settings, out)
    panels = {column: label for column, label in _PANELS.items() if any(one.points(column) for one in drawn)}
    rows, columns = math.ceil(len(panels) / _IN_A_ROW), min(len(panels), _IN_A_ROW)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.6 * rows), squeeze=False)
    for empty in axes.flat[len(panels) :]:
        empty.remove()
    for axis, (column, label) in zip(axes.flat, panels.items(), strict=False):
        for number, course in enumerate(drawn):
            if points := course.points(column):
                # A kind of attention has one colour in all panels.
                colour = f"C{number}"
                marker = "." if column == "validation_perplexity" else None
                shown = smoothed(points) if column in _SINGLE_BATCHES else points
                axis.plot(*zip(*shown, strict=True), marker=marker, color=colour, label=course.name)
                _draw_range(axis, course, column, colour)
        axis.set_xlabel("million tokens read")
        axis.set_ylabel(label)
        if column == "validation_perplexity":
            axis.set_yscale("log", subs=())
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)))
            axis.yaxis.set_major_formatter(ScalarFormatter())
    axes.flat[0].legend(frameon=False, fontsize="small")
    figure.tight_layout()
    figure.savefig(out / "training.png", dpi=130)
    plt.close(figure)
    return out / "training.png"


def _draw_range(axis: "Axes", course: Course, column: str, colour: str) -> None:
    """The least and the greatest of all heads, where the column is a mean over heads."""
    least, most = (course.points(column.replace("_mean", end)) for end in ("_least", "_most"))
    if column.endswith("_mean") and least:
        tokens, low = zip(*least, strict=True)
        axis.fill_between(tokens, low, [value for _, value in most], color=colour, alpha=0.15, linewidth=0)
