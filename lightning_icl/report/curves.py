"""Every picture of a run as PNG and SVG: curves over layers, heads, fine-tuning; from saved results alone."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import OutputError
from lightning_icl.report.layers import TITLES, layer_curves
from lightning_icl.results import TaskRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADS = (("per_head", "ICL and FT"), ("zsl_per_head", "ICL and ZSL"), ("difference_per_head", "differences"))
_STYLES: dict[str, dict[str, Any]] = {
    "main": {"color": "tab:blue"},
    "form": {"color": "tab:orange"},
    "baseline": {"color": "0.55", "linestyle": "--"},
    "control": {"alpha": 0.7},
    "published": {"color": "black", "linestyle": ":"},
}


def _pyplot() -> Any:
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise OutputError("Pictures need matplotlib: pip install 'lightning-icl[plot]'.") from error
    return plt


def draw_curves(runs: Sequence[TaskRun], level: str) -> "Figure":
    """One panel for each task, with shared axes.

    Args:
        runs: the tasks.
        level: `sim_aou`, `sim_am` or `kendall`.

    Raises:
        OutputError: matplotlib is not installed.
    """
    plt = _pyplot()
    title = TITLES[level]
    columns = min(3, len(runs))
    rows = -(-len(runs) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.0 + 3.2 * columns, 0.9 + 2.5 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, run in zip(axes.flat, runs, strict=False):
        _draw(axis, run, level)
    for axis in axes.flat[len(runs) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("layer")
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes.flat), key=lambda item: len(item[1]))
    figure.legend(handles, labels, loc="lower center", ncols=min(len(labels), 1 + 2 * columns), frameon=False)
    figure.suptitle(f"{title}\n{runs[0].results['model']['name']}", fontsize=11)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


def _draw(axis: Any, run: TaskRun, level: str) -> None:
    for curve in layer_curves(run, level):
        values = _floats(curve.values)
        if curve.upper is not None:
            axis.fill_between(range(len(values)), values, _floats(curve.upper), alpha=0.25, label=curve.label)
            continue
        style = _STYLES[curve.role]
        axis.plot(range(len(values)), values, marker="o", markersize=3, linewidth=1.4, label=curve.label, **style)
    axis.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axis.set_title(run.task, fontsize=10)
    axis.xaxis.get_major_locator().set_params(integer=True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _floats(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def draw_heads(runs: Sequence[TaskRun]) -> "Figure":
    """SimAM of each layer and head: one row of maps for each task, one column for each form."""
    plt = _pyplot()
    figure, axes = plt.subplots(len(runs), len(HEADS), figsize=(9.0, 0.8 + 2.4 * len(runs)), squeeze=False)
    for row, run in zip(axes, runs, strict=True):
        for axis, (key, label) in zip(row, HEADS, strict=True):
            cells = [_floats(layer) for layer in run.results["sim_am"].get(key) or [[None]]]
            image = axis.imshow(cells, cmap="RdBu", vmin=-1, vmax=1, origin="lower", aspect="auto")
            axis.set_title(f"{run.task}: {label}", fontsize=9)
            axis.set_xlabel("head", fontsize=8)
            axis.set_ylabel("layer", fontsize=8)
    figure.tight_layout()
    figure.colorbar(image, ax=axes, label="SimAM")
    return figure


def draw_finetuning(runs: Sequence[TaskRun]) -> "Figure":
    """Loss of each step of fine-tuning, and norm of the update in each layer, one curve for each task."""
    plt = _pyplot()
    figure, (loss, norm) = plt.subplots(1, 2, figsize=(9.0, 3.4))
    for run in runs:
        loss.plot(range(1, 1 + run.results["finetune"]["steps"]), run.results["finetune"]["loss"], label=run.task)
        norm.plot(run.results["finetune"]["update_norm_per_layer"], marker="o", markersize=3)
    loss.set(xlabel="step", title="loss of fine-tuning")
    norm.set(xlabel="layer", title="norm of the update")
    loss.legend(fontsize="x-small", frameon=False)
    figure.tight_layout()
    return figure


def save_pictures(runs: Sequence[TaskRun], folder: Path) -> list[Path]:
    """Write every picture that the runs have data for, as PNG and SVG.

    Raises:
        OutputError: matplotlib is not installed, or the folder cannot be written.
    """
    drawn: list[tuple[str, Callable[[], "Figure"]]] = []
    for level in TITLES:
        if compared := [run for run in runs if run.results.get(level)]:
            drawn.append((level, partial(draw_curves, compared, level)))
    if headed := [run for run in runs if (run.results.get("sim_am") or {}).get("per_head")]:
        drawn.append(("sim_am_heads", partial(draw_heads, headed)))
    if tuned := [run for run in runs if (run.results.get("finetune") or {}).get("loss")]:
        drawn.append(("finetuning", partial(draw_finetuning, tuned)))
    return [path for name, draw in drawn for path in _save(draw(), folder, name)]


def _save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        part = folder / f".{name}.part{path.suffix}"
        try:
            figure.savefig(part, dpi=150, bbox_inches="tight")
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    _pyplot().close(figure)
    return paths
