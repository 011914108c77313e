"""The log and the loss curve of a training run, for its model card."""

import csv
from collections.abc import Sequence
from pathlib import Path


def join_logs(versions: Sequence[Path], joined: Path) -> None:
    """One log of a run that was interrupted and went on: steps done twice count as last done.

    Args:
        versions: CSV files with a column step, in the order they were written.
        joined: CSV file to write.
    """
    by_step: dict[int, dict[str, str]] = {}
    for version in versions:
        rows = {int(row["step"]): row for row in _read(version)}
        by_step = {step: row for step, row in by_step.items() if step < min(rows, default=step + 1)} | rows
    with joined.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(next(iter(by_step.values()), {"step": ""})))
        writer.writeheader()
        writer.writerows(by_step.values())


def draw_loss_curve(log: Path, picture: Path, smooth: int = 10) -> None:
    """Draw loss and answer accuracy over steps from the run's log.

    Args:
        log: CSV file with the columns step, loss, answer_loss and answer_accuracy.
        picture: PNG file to write.
        smooth: entries averaged for each point.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = _read(log)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for axis, names, label in (
        (axes[0], ("loss", "answer_loss"), "nats per token"),
        (axes[1], ("answer_accuracy",), "share of answer tokens predicted"),
    ):
        for name in names:
            values = [float(row[name]) for row in rows]
            means = [
                sum(values[start : start + smooth]) / smooth for start in range(0, len(values) - smooth + 1, smooth)
            ]
            steps = [int(rows[start]["step"]) for start in range(0, len(values) - smooth + 1, smooth)]
            axis.plot(steps, means, label=name.replace("_", " "))
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.legend(frameon=False)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=130)


def _read(log: Path) -> list[dict[str, str]]:
    with log.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
