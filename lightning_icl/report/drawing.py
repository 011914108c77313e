"""matplotlib as every picture of a run needs it: no display, no mathematics in names, the same file of the same run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pyplot() -> Any:
    """The plotting library, drawing into files.

    Raises:
        OutputError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")  # before pyplot is imported: there may be no display
        matplotlib.rcParams["text.parse_math"] = False  # a name with dollar signs is a name
        matplotlib.rcParams["svg.hashsalt"] = "lightning-icl"  # else SVG files name their elements at random
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise OutputError("Pictures need matplotlib: pip install 'lightning-icl[plot]'.") from error
    return plt


def save_figure(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG, and close it."""
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        # A date would make another file of the same run.
        undated = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=150, bbox_inches="tight", metadata=undated)
    pyplot().close(figure)  # pyplot keeps every figure until it is closed
    return paths
