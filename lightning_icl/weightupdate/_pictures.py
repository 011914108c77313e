"""Pictures of the ladder, from the content of `weight_update.json` alone: distance by rung, and curves over layers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.records import VIEWS
from lightning_icl.report.drawing import pyplot, save_figure
from lightning_icl.report.ladder import TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLOOR = 1e-7  # nats; what is nearer cannot be told from rounding on a logarithmic axis


def draw_rungs(content: Mapping[str, Any]) -> "Figure":
    """How far each rung is from in-context learning: divergence and correlation of margins, with their intervals."""
    # In-context learning is at distance 0 from itself and would end the logarithmic axis.
    names = [name for name in TITLES if name in content["conditions"] and name != "icl"]
    figure, axes = pyplot().subplots(1, 2, figsize=(9.5, 1.2 + 0.33 * len(names)), sharey=True, layout="constrained")
    for axis, figure_name, label in zip(
        axes, ("kl", "margin_correlation"), ("KL from ICL, nats", "correlation of margins with ICL's"), strict=True
    ):
        # Matplotlib counts from below, and the crudest rung stands on top.
        for place, name in enumerate(reversed(names)):
            value, ends = content["conditions"][name][figure_name], content["intervals"][name][figure_name]
            low, high = (value, value) if ends is None else ends
            if value is None or math.isnan(value):
                continue
            if figure_name == "kl":
                # A logarithmic axis has no 0.
                low, value, high = (max(_FLOOR, number) for number in (low, value, high))
            axis.plot([low, high], [place, place], color="0.6", linewidth=1.5)
            axis.plot([value], [place], marker="o", color="C1" if name == "ft" else "C0")
        axis.set_xlabel(label)
        axis.grid(axis="x", color="0.92")
    axes[0].set_xscale("log")
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[0].set_yticks(range(len(names)), list(reversed(names)))
    figure.suptitle(_heading(content, "Demonstrations replaced by an update of each head"), fontsize=11)
    return figure


def draw_layers(content: Mapping[str, Any]) -> "Figure":
    """Every rung's update of attention outputs beside in-context learning's and fine-tuning's, layer by layer."""
    names = [name for name in TITLES if name in content["per_layer"] and name not in VIEWS]
    figure, axes = pyplot().subplots(1, 2, figsize=(9.5, 3.6), sharey=True, layout="constrained")
    for axis, curve, title in zip(axes, ("simaou_icl", "simaou_ft"), ("ICL's update", "FT's update"), strict=True):
        for number, name in enumerate(names):
            _line(axis, content["per_layer"][name][curve], name, f"C{number}")
        # The line to which rungs are compared: in-context learning's own agreement with fine-tuning.
        if curve == "simaou_ft":
            _line(axis, content["per_layer"]["icl"][curve], "icl", "black")
        axis.set_title(f"Cosine with {title}", fontsize=10)
        axis.set_xlabel("layer")
        axis.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axes[1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(_heading(content, "Updates of attention outputs"), fontsize=11)
    return figure


def draw_depth(content: Mapping[str, Any]) -> "Figure":
    """Divergence with one rung in the layers up to each one, from each one on, and in each one alone."""
    depth = content["depth"]
    figure, axis = pyplot().subplots(figsize=(6.0, 3.6), layout="constrained")
    for key, label in (("up_to", "up to the layer"), ("from", "from the layer on"), ("alone", "in the layer alone")):
        values = [content["conditions"].get(name, {}).get("kl") for name in depth[key]]
        _line(axis, [None if value is None else max(_FLOOR, value) for value in values], label, None)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("layer")
    axis.set_ylabel("KL from ICL, nats")
    axis.legend(frameon=False, fontsize="small")
    figure.suptitle(_heading(content, f"{depth['rung']} in some of the layers"), fontsize=11)
    return figure


def _line(axis: Any, values: Sequence[float | None], label: str, colour: str | None) -> None:
    numbers = [float("nan") if value is None else value for value in values]
    axis.plot(range(len(numbers)), numbers, marker="o", markersize=3, label=label, color=colour)
    axis.xaxis.get_major_locator().set_params(integer=True)


def _heading(content: Mapping[str, Any], title: str) -> str:
    return f"{title}\n{content['model']['name']}, {content['task']['name']}, scope {content['scope']}"


def save_pictures(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every picture as PNG and SVG.

    Raises:
        OutputError: matplotlib is not installed.
    """
    drawings = {"rungs": draw_rungs, "layers": draw_layers}
    if content["depth"] is not None:
        drawings["depth"] = draw_depth
    return [
        path for name, draw in drawings.items() for path in save_figure(draw(content), folder, f"weight_update_{name}")
    ]
