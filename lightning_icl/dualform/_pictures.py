"""Heat maps of the dual form, from the content of `dual_form.json` alone: layers by heads, layers by demonstrations."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.report.drawing import pyplot, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (
    ("linear_cosine", "linear and softmax attention", "query head"),
    ("update_cosine", "ΔW_ICL q and softmax's update", "query head"),
    ("effect_cosine", "ΔW_ICL q and ΔW_FT q", "query head"),
    ("cosine", "ΔW_ICL and ΔW_FT", "key/value head"),
    ("zsl_icl_cosine", "control: W_ZSL and ΔW_ICL", "key/value head"),
    ("zsl_ft_cosine", "control: W_ZSL and ΔW_FT", "key/value head"),
)
# Beyond this many cells a side, numbers in the cells are not readable.
_LETTERED = 12


def draw_heads(content: Mapping[str, Any]) -> "Figure":
    """Cosines of every head: six panels on one scale from −1 to 1."""
    figure, axes = _panels(2, 3, rows=len(content["layers"]))
    image: Any = None
    for axis, (name, title, columns) in zip(axes.flat, PANELS, strict=True):
        image = _heat(axis, content["per_head"][name], content["layers"], (-1.0, 1.0))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(columns)
    for axis in axes[:, 0]:
        axis.set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="cosine", shrink=0.8)
    figure.suptitle(_heading(content, "Cosines in the dual form, head by head"), fontsize=11)
    return figure


def draw_shares(content: Mapping[str, Any]) -> "Figure":
    """Each demonstration's share in ΔW_ICL, layer by layer, in units of an equal share."""
    figure, axes = _panels(1, 1, rows=len(content["layers"]), width=8.5)
    axis = axes[0, 0]
    many = len(content["demonstrations"])
    shares = [list(row) for row in zip(*(item["share_per_layer"] for item in content["demonstrations"]), strict=True)]
    times = [[float("nan") if value is None else many * value for value in row] for row in shares]
    # Symmetric about an equal share, so that white means "its share".
    spread = max((abs(value - 1.0) for row in times for value in row if not math.isnan(value)), default=1.0)
    image = _heat(axis, times, content["layers"], (1.0 - spread, 1.0 + spread))
    labels = [item["label"] for item in content["demonstrations"]]
    axis.set_xticks(range(len(labels)), [f"{number + 1} {label}" for number, label in enumerate(labels)], rotation=90)
    axis.tick_params(axis="x", labelsize=7)
    axis.set_xlabel("demonstration, in prompt order")
    axis.set_ylabel("layer")
    figure.colorbar(image, ax=axes, label=f"share, times 1/{many}", shrink=0.9)
    figure.suptitle(_heading(content, "Shares of the demonstrations in ΔW_ICL"), fontsize=11)
    return figure


def _heading(content: Mapping[str, Any], title: str) -> str:
    return f"{title}\n{content['model']['name']}, {content['task']['name']}"


def _panels(down: int, across: int, *, rows: int, width: float = 9.5) -> tuple["Figure", Any]:
    height = 1.3 + down * (1.0 + min(3.0, max(1.4, 0.3 * rows)))
    return pyplot().subplots(down, across, figsize=(width, height), squeeze=False, layout="constrained")


def _heat(axis: Any, values: list[list[float]], layers: list[int], limits: tuple[float, float]) -> Any:
    """One heat map, first layer at the bottom; numbers in the cells where they can be read."""
    cells = [[float("nan") if value is None else value for value in row] for row in values]
    axis.set_facecolor("0.9")  # of what is undefined
    image = axis.imshow(cells, aspect="auto", origin="lower", cmap="RdBu_r", vmin=limits[0], vmax=limits[1])
    # At most a dozen labels a side.
    rows, columns = (range(0, count, max(1, count // _LETTERED)) for count in (len(cells), len(cells[0])))
    axis.set_yticks(rows, [str(layers[row]) for row in rows])
    axis.set_xticks(columns)
    if max(len(cells), len(cells[0])) <= _LETTERED:
        middle, half = sum(limits) / 2, (limits[1] - limits[0]) / 2
        for row, line in enumerate(cells):
            for column, value in enumerate(line):
                # White text on dark cells, or the number could not be read.
                dark = abs(value - middle) > 0.65 * half
                text = "–" if math.isnan(value) else f"{value:.2f}"
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    return image


def save_pictures(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `dual_heads` and `dual_shares`, each as PNG and SVG.

    Raises:
        OutputError: matplotlib is not installed.
    """
    drawings = {"dual_heads": draw_heads, "dual_shares": draw_shares}
    return [path for name, draw in drawings.items() for path in save_figure(draw(content), folder, name)]
