"""Curves over layers, one panel for each task, from saved results alone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import OutputError
from lightning_icl.results import TaskRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "sim_aou": (
        "SimAOU: similarity of attention-output updates",
        (("per_layer", "SimAOU"), ("raw_per_layer", "raw"), ("random_per_layer", "random")),
    ),
    "sim_am": (
        "SimAM: similarity of attention maps",
        (("per_layer", "ICL and FT"), ("zsl_per_layer", "ICL and ZSL"), ("difference_per_layer", "differences")),
    ),
    "kendall": (
        "Kendall rank correlation of attention to training tokens",
        (("per_layer", "tokens"), ("example_per_layer", "demonstrations"), ("random_per_layer", "random")),
    ),
}


def draw_curves(runs: Sequence[TaskRun], level: str) -> "Figure":
    """One panel for each task, with shared axes.

    Args:
        runs: the tasks.
        level: `sim_aou`, `sim_am` or `kendall`.

    Raises:
        OutputError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise OutputError("Curves need matplotlib: pip install 'lightning-icl[plot]'.") from error
    title, lines = CURVES[level]
    columns = min(3, len(runs))
    rows = -(-len(runs) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.0 + 3.2 * columns, 0.9 + 2.5 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, run in zip(axes.flat, runs, strict=False):
        _draw(axis, run, level, lines)
    for axis in axes.flat[len(runs) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("layer")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(lines), frameon=False)
    figure.suptitle(f"{title}\n{runs[0].results['model']['name']}", fontsize=11)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


def _draw(axis: Any, run: TaskRun, level: str, lines: Sequence[tuple[str, str]]) -> None:
    values = run.results.get(level) or {}
    for key, label in lines:
        curve = [float("nan") if value is None else value for value in values.get(key) or []]
        axis.plot(range(len(curve)), curve, marker="o", markersize=3, linewidth=1.4, label=label)
    axis.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axis.set_title(run.task, fontsize=10)
    axis.xaxis.get_major_locator().set_params(integer=True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def save_curves(runs: Sequence[TaskRun], folder: Path) -> list[Path]:
    """Write one PNG for each level that the runs have.

    Raises:
        OutputError: matplotlib is not installed, or the folder cannot be written.
    """
    paths = []
    for level in CURVES:
        compared = [run for run in runs if run.results.get(level)]
        if not compared:
            continue
        figure, path = draw_curves(compared, level), folder / f"{level}.png"
        part = folder / f".{level}.part.png"
        try:
            figure.savefig(part, dpi=150)
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
        paths.append(path)
    return paths
