"""The experiment's curves as PNG."""

import importlib.util
import statistics
from pathlib import Path

from experiments.momentum.settings import ExperimentSettings
from experiments.momentum.summary import Measured, accuracies
from experiments.momentum.training_curves import draw_training
from lightning_icl.errors import UserError

_BINS = 32


def need_matplotlib() -> None:
    """Raise a UserError where nothing could be drawn, before anything is trained."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("The curves need matplotlib, which is not installed: pip install 'lightning-icl[plot]'.")


def draw_curves(settings: ExperimentSettings, measured: Measured, out: Path) -> list[Path]:
    """Perplexity over length, loss over position, every training's course, and the sweep over η."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    momentum = f"eta-{settings.eta:g}"
    main, pictures = ("vanilla", momentum), []

    def save(name: str, x_label: str, y_label: str) -> None:
        plt.xlabel(x_label)
        plt.ylabel(y_label)
        plt.legend(frameon=False)
        plt.tight_layout()
        plt.savefig(out / f"{name}.png", dpi=130)
        plt.close()
        pictures.append(out / f"{name}.png")

    plt.figure(figsize=(5, 3.4))
    for name in main:
        rows = [found["perplexity"] for found in measured[name].values()]
        means = [statistics.fmean(row[str(length)] for row in rows) for length in settings.lengths]
        plt.plot(settings.lengths, means, marker="o", label=name)
    plt.xscale("log", base=2)
    save("perplexity_by_length", "tokens in the input", "held-out perplexity")

    plt.figure(figsize=(5, 3.4))
    for name in main:
        curves = [found["position_loss"] for found in measured[name].values()]
        mean = [statistics.fmean(values) for values in zip(*curves, strict=True)]
        width = max(1, len(mean) // _BINS)
        starts = range(0, len(mean) - width + 1, width)
        plt.plot(
            [start + width / 2 for start in starts],
            [statistics.fmean(mean[start : start + width]) for start in starts],
            label=name,
        )
    save("loss_by_position", "position in the input", "held-out loss (nats per token)")

    pictures.append(draw_training(settings, out))
    fixed = [
        variant
        for variant in settings.variants
        if variant.momentum is not None and not variant.learnt and not variant.changes
    ]
    if len(fixed) > 1:
        longest, icl = str(max(settings.lengths)), accuracies(measured)["mean"]
        _, axes = plt.subplots(1, 2, figsize=(8.5, 3.4))
        for axis, label, figure in (
            (axes[0], f"held-out perplexity, {longest} tokens", lambda found: found["perplexity"][longest]),
            (axes[1], "in-context accuracy, mean of tasks (%)", icl),
        ):
            points = sorted((v.momentum, figure(measured[v.name][v.seeds[0]])) for v in fixed)
            axis.plot(*zip(*points, strict=True), marker="o", label="η fixed")
            for name, style in (("vanilla", "--"), ("learnt", ":")):
                if name in measured:
                    first = next(iter(measured[name].values()))
                    axis.axhline(figure(first), linestyle=style, color="grey", label=name)
            axis.set_xlabel("η")
            axis.set_ylabel(label)
            axis.legend(frameon=False)
        plt.tight_layout()
        plt.savefig(out / "sweep.png", dpi=130)
        plt.close()
        pictures.append(out / "sweep.png")
    return pictures
