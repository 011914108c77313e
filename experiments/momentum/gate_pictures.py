"""Gates and η trained alone, of every layer and head, as pictures of one scale."""

from pathlib import Path

from experiments.momentum.gate_tables import heads
from experiments.momentum.summary import Measured


def draw_gates(results: Measured, path: Path) -> None:
    """Draw a panel for the gates of every arm and one for each learnt η, layers downwards, means over seeds.

    Args:
        results: figures of `gates` by arm and seed.
        path: PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [
        (f"{label}: {name}", key, values)
        for key, label in (("gate", "gate"), ("eta", "η"))
        for name, by_seed in results.items()
        if (values := heads(by_seed, key))
    ]
    # All gates on one scale around 0, so that arms can be compared by eye.
    reach = max((abs(one) for _, key, rows in panels if key == "gate" for row in rows for one in row), default=0.0)
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 3.8), squeeze=False)
    for axis, (title, key, rows) in zip(axes[0], panels, strict=True):
        scale = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach} if key == "gate" else {"cmap": "viridis"}
        figure.colorbar(axis.imshow(rows, aspect="auto", interpolation="nearest", **scale), ax=axis)
        axis.set_title(title, fontsize="small")
        axis.set_xlabel("head" if key == "gate" else "key and value head")
        axis.set_ylabel("layer")
        for numbered in (axis.xaxis, axis.yaxis):
            numbered.get_major_locator().set_params(integer=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
