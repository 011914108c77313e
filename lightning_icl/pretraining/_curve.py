"""The loss curve of a training run, for its model card."""

import csv
from pathlib import Path

_POINTS = 120


def draw_loss_curve(log: Path, picture: Path) -> None:
    """Draw losses and answer accuracy over steps from the run's log, as far as it has them.

    Args:
        log: CSV file with the column step, and any of loss, answer_loss, adapted_answer_loss, validation_loss
            and answer_accuracy.
        picture: PNG file to write; each point is the mean of as many entries as leave some hundred points.
    """
    # Figures are drawn without a display.
    import matplotlib

    # Before pyplot is imported, which chooses a backend: this one needs no display.
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = _read(log)
    panels: dict[str, tuple[str, ...]] = {
        "nats per token": ("loss", "answer_loss", "adapted_answer_loss", "validation_loss")
    }
    if any(row.get("answer_accuracy") for row in rows):
        panels["share of answer tokens predicted"] = ("answer_accuracy",)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.2), squeeze=False)
    for axis, (label, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            width = max(1, len(points) // _POINTS)
            # A rest shorter than a window would be a mean of few and stand out.
            starts = range(0, len(points) - width + 1, width)
            means = [sum(value for _, value in points[start : start + width]) / width for start in starts]
            if means:
                axis.plot([points[start][0] for start in starts], means, label=name.replace("_", " "))
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.legend(frameon=False)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=130)
    plt.close(figure)


def _read(log: Path) -> list[dict[str, str]]:
    with log.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
