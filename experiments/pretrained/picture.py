"""SimAOU over layers, of the seeds of a study and of four of its controls: a mean, with the seeds' lowest and highest.

python -m experiments.pretrained.picture runs/pretrained-smollm2-135m sim_aou.png
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_icl.results import RESULTS

SHOWN = {
    "": ("ICL and FT", "#1d5fbf", "-"),
    "labels-random": ("the same, labels random", "#d4761b", "--"),
    "untrained": ("an untrained model", "#7b3fa0", "-"),
    "ft-gaussian": ("Gaussian update in FT's place", "#7d7d7d", "-"),
    "shuffled-query": ("ICL of two queries", "#2f7d32", "-"),
}
"""Of each curve its name in the legend, its colour and its line; the first is the run itself."""


def per_layer(out: Path, task: str, control: str) -> np.ndarray:
    """SimAOU of a task by seed and layer, `(seeds, layers)`; NaN where it is undefined."""
    rows = []
    for path in sorted(out.glob(f"seed-*/{task}/{RESULTS}")):
        results = json.loads(path.read_text(encoding="utf-8"))
        rows.append((results["controls"][control] if control else results)["sim_aou"]["per_layer"])
    return np.array(rows, dtype=float)


def draw(out: Path, tasks: Sequence[str], picture: Path) -> None:
    """A panel for each task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), sharex=True, sharey=True, layout="constrained")
    for axis, task in zip(axes.flat, tasks, strict=True):
        axis.axhline(0, color="#bbbbbb", linewidth=0.8)
        for control, (label, colour, line) in SHOWN.items():
            values = per_layer(out, task, control)
            layers = np.arange(values.shape[1])
            axis.plot(layers, values.mean(0), line, color=colour, label=label, linewidth=1.6)
            axis.fill_between(layers, values.min(0), values.max(0), color=colour, alpha=0.13, linewidth=0)
        axis.set_title(task)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("layer")
    for axis in axes[:, 0]:
        axis.set_ylabel("SimAOU")
    handles = axes.flat[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=5, frameon=False, fontsize="small")
    figure.savefig(picture, dpi=120)
    plt.close(figure)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the study, with a folder for each seed")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--tasks", default="sst2,sst5,mr,subj,agnews,cb", help="six names")
    arguments = parser.parse_args(words)
    draw(arguments.out, arguments.tasks.split(","), arguments.picture)


if __name__ == "__main__":
    main()
