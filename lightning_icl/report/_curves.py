"""Every picture of a run as PNG and SVG: curves over layers, heads, fine-tuning; from saved results alone."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.measures import Measure, head_figures, layered
from lightning_icl.report.drawing import pyplot, save_figure
from lightning_icl.report.layers import Curve, seed_curves
from lightning_icl.report.scales import decades, size_word
from lightning_icl.report.seeds import Run, same_task
from lightning_icl.report.side_by_side import SizePoint, size_points
from lightning_icl.report.strokes import ROLES, Strokes, legend_of, plot_style
from lightning_icl.report.sweep import OverRates, Row, over_rates, rate_figures, settings_of
from lightning_icl.report.tables import model_name
from lightning_icl.results import TaskRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 40  # letters of a name


def draw_curves(panels: Sequence[Sequence[TaskRun]], measure: Measure) -> "Figure":
    """One panel for each task, with shared axes.

    Args:
        panels: the runs of each task, one for each seed.
        measure: has lines over layers.

    Raises:
        OutputError: matplotlib is not installed.
    """
    plt = pyplot()
    columns = min(3, len(panels))
    # Rounded up.
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.0 + 3.2 * columns, 0.9 + 2.5 * rows), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    # All panels first: the legend is the union of what they draw.
    drawn = [seed_curves(runs, measure.level) for runs in panels]
    strokes = Strokes(run for runs in panels for run in runs)
    handles: dict[str, Any] = {}
    # Earlier handles win, so that a name keeps the look of the first panel that has it.
    for axis, runs, curves in zip(axes.flat, panels, drawn, strict=False):
        handles = _draw(axis, runs[0].task, curves, strokes) | handles
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("layer")
    order = [curve.label for curve in legend_of(drawn)]
    figure.legend(
        [handles[label] for label in order], list(map(_short, order)), loc="upper center", bbox_to_anchor=(0.5, 0.0),
        ncols=min(len(order), 1 + 2 * columns), frameon=False,
    )  # fmt: skip
    figure.suptitle(f"{measure.title}\n{_short(model_name(panels[0]))}", fontsize=11)
    return figure


def _draw(axis: Any, title: str, curves: Sequence[Curve], strokes: Strokes) -> dict[str, Any]:
    """Draw one panel; what stands for each name in it."""
    handles = {}
    for curve in curves:
        values, stroke = _floats(curve.values), strokes.of(curve)
        if curve.upper is not None:
            # A band has no line of its own; its edges would hide the curves.
            band = {"alpha": 0.25, "linewidth": 0, "color": stroke.light, "label": curve.label}
            handles[curve.label] = axis.fill_between(range(len(values)), values, _floats(curve.upper), **band)
            continue
        (handles[curve.label],) = axis.plot(range(len(values)), values, label=curve.label, **plot_style(stroke))
    # Zero is what unrelated views have.
    axis.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axis.set_title(_short(title), fontsize=10)
    axis.xaxis.get_major_locator().set_params(integer=True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return handles


def _short(name: str) -> str:
    """A name that leaves room for what it stands beside."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _floats(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def draw_heads(runs: Sequence[TaskRun]) -> "Figure":
    """Cosines of each layer and head: one row of maps for each task, one column for each figure."""
    plt = pyplot()
    columns = head_figures()
    figure, axes = plt.subplots(
        len(runs), len(columns), figsize=(9.0, 0.8 + 2.4 * len(runs)), squeeze=False, layout="constrained"
    )
    for row, run in zip(axes, runs, strict=True):
        for axis, column in zip(row, columns, strict=True):
            # `[[None]]` draws an empty map where a run of another version has no heads.
            saved = (run.results.get(column.measure.level) or {}).get(column.per_head) or [[None]]
            cells = [_floats(layer) for layer in saved]
            # One scale for all maps, from -1 to 1, so that colours can be compared.
            image = axis.imshow(cells, cmap="RdBu", vmin=-1, vmax=1, origin="lower", aspect="auto")
            axis.set_title(f"{_short(run.task)}: {column.curve}", fontsize=9)
            axis.set_xlabel("head", fontsize=8)
            axis.set_ylabel("layer", fontsize=8)
    figure.colorbar(image, ax=axes, label="cosine")
    return figure


def draw_finetuning(runs: Sequence[TaskRun]) -> "Figure":
    """Loss of each step of fine-tuning, and norm of the update in each layer, one curve for each task."""
    plt = pyplot()
    figure, (loss, norm) = plt.subplots(1, 2, figsize=(9.0, 3.4), layout="constrained")
    for run in runs:
        losses, norms = (_floats(run.results["finetune"].get(key) or ()) for key in ("loss", "update_norm_per_layer"))
        loss.plot(range(1, 1 + len(losses)), losses, label=_short(run.task))
        norm.plot(norms, marker="o", markersize=3)
    loss.set(xlabel="step", title="loss of fine-tuning")
    norm.set(xlabel="layer", title="norm of the update")
    loss.legend(fontsize="x-small", frameon=False)
    return figure


def save_pictures(runs: Sequence[TaskRun], folder: Path) -> list[Path]:
    """Write every picture that the runs have data for, as PNG and SVG.

    Raises:
        OutputError: matplotlib is not installed.
    """
    # Drawing is put off until all names are known: each figure takes memory while it is open.
    drawn = _level_pictures([[run] for run in runs])
    if headed := [run for run in runs if has_heads(run)]:
        drawn.append(("sim_am_heads", partial(draw_heads, headed)))
    if tuned := [run for run in runs if (run.results.get("finetune") or {}).get("loss")]:
        drawn.append(("finetuning", partial(draw_finetuning, tuned)))
    return [path for name, draw in drawn for path in save_figure(draw(), folder, name)]


def has_heads(run: TaskRun) -> bool:
    """Whether a task has values for each head."""
    return any((run.results.get(figure.measure.level) or {}).get(figure.per_head) for figure in head_figures())


def save_seed_pictures(group: Sequence[Run], folder: Path, prefix: str) -> list[Path]:
    """Write the curves over layers of runs that differ in the seed alone, as `PREFIX_LEVEL` in PNG and SVG.

    Raises:
        OutputError: matplotlib is not installed.
    """
    drawn = _level_pictures(same_task(group))
    return [path for name, draw in drawn for path in save_figure(draw(), folder, f"{prefix}_{name}")]


def save_size_picture(groups: Sequence[Sequence[Run]], folder: Path) -> list[Path]:
    """Write the models' sizes against each measure as `side_by_side` in PNG and SVG; nothing where none says its size.

    Raises:
        OutputError: matplotlib is not installed.
    """
    measures = size_points(groups)
    return save_figure(draw_sizes(measures), folder, "side_by_side") if measures else []


def draw_sizes(measures: Mapping[str, Sequence[SizePoint]]) -> "Figure":
    """Parameters, on a logarithmic axis, against each measure, with standard errors over seeds."""
    plt = pyplot()
    columns = min(3, len(measures))
    rows = -(-len(measures) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.0 + 3.2 * columns, 0.6 + 2.4 * rows), sharex=True, squeeze=False, layout="constrained"
    )
    handles: dict[str, Any] = {}
    for axis, (measure, points) in zip(axes.flat, measures.items(), strict=False):
        # By number and not by name: a model has the same colour in every panel.
        for number, point in enumerate(points):
            handles[point.label] = axis.errorbar(
                point.parameters, point.spread.mean, point.spread.standard_error,
                marker="o", capsize=2, linestyle="", color=f"C{number}", label=point.label,
            )  # fmt: skip
        low, high = decades([point.parameters for point in points])
        powers = range(low, high + 1)
        axis.set(xscale="log", title=measure, xlim=(10.0**low, 10.0**high))
        axis.set_xticks([10.0**power for power in powers], [size_word(power) for power in powers])
        axis.xaxis.set_minor_formatter("")
    for axis in axes.flat[len(measures) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("parameters")
    figure.legend(
        handles.values(), handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns, frameon=False
    )
    return figure


def save_rate_pictures(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the figures of a sweep over learning rates, as `sweep_FIGURE` in PNG and SVG.

    Raises:
        OutputError: matplotlib is not installed.
    """
    drawn = []
    for figure in rate_figures():
        panels = {name: over_rates(figure, own) for name, own in settings_of(rows).items()}
        if panels := {name: over for name, over in panels.items() if over.seeds}:
            drawn.append((f"sweep_{figure.name}", partial(draw_rates, panels)))
    return [path for name, draw in drawn for path in save_figure(draw(), folder, name)]


def draw_rates(panels: Mapping[str, OverRates]) -> "Figure":
    """One panel for each setting: every run a point, their means a line, the rate chosen an upright line."""
    plt = pyplot()
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (1.0 + 3.2 * columns, 0.9 + 2.5 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    handles: dict[str, Any] = {}
    for axis, (name, over) in zip(axes.flat, panels.items(), strict=False):
        # All runs as points: a mean over seeds hides how far apart they are.
        (handles["each run"],) = axis.plot(*zip(*over.seeds, strict=True), "o", color=ROLES["seed"].light, markersize=3)
        (handles["mean over seeds"],) = axis.plot(over.rates, _floats(over.means), **plot_style(ROLES["main"]))
        for role, label in zip((ROLES["form"], ROLES["baseline"]), over.levels, strict=False):
            handles[label] = axis.axhline(over.levels[label], **{**plot_style(role), "marker": ""})
        if over.chosen is not None:
            handles["chosen rate"] = axis.axvline(over.chosen, **{**plot_style(ROLES["published"]), "marker": ""})
        axis.set(xscale="log", xlabel="learning rate")
        axis.set_title(_short(name), fontsize=10)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.legend(
        handles.values(), handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(handles), frameon=False
    )
    figure.suptitle(next(iter(panels.values())).figure.measure.title, fontsize=11)
    return figure


def _level_pictures(panels: Sequence[Sequence[TaskRun]]) -> list[tuple[str, Callable[[], "Figure"]]]:
    pictures: list[tuple[str, Callable[[], Figure]]] = []
    for measure in layered():
        if compared := [runs for runs in panels if seed_curves(runs, measure.level)]:
            pictures.append((measure.level, partial(draw_curves, compared, measure)))
    return pictures
