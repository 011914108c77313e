"""Curves over layers, for the `plot` method of every metric."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_axes(ax: "Axes | None") -> "tuple[Figure, Axes]":
    """The axes passed in, or new ones.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Plots need matplotlib: pip install 'lightning-icl[plot]'.") from error
    if ax is None:
        return plt.subplots()
    return ax.get_figure(), ax  # type: ignore[return-value]


def plot_layers(curves: Mapping[str, Tensor], title: str, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":
    """One curve over layers for each name.

    Args:
        curves: (layer,) values by name; NaN leaves a gap.
        title: of the axes.
        ax: axes to draw on; new ones without.
    """
    figure, ax = new_axes(ax)
    for name, values in curves.items():
        ax.plot(range(len(values)), values.cpu().numpy(), marker="o", markersize=3, label=name)
    # Zero is the value of no relation, so a reader needs to see it.
    ax.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    ax.set_xlabel("layer")
    ax.set_title(title)
    ax.legend(frameon=False, fontsize="small")
    return figure, ax
