"""The learning rates that `--lr auto` tried for a task, and what it made of each."""

from typing import Any

from lightning_icl.report.grid import Grid
from lightning_icl.results import TaskRun


def rates_grid(run: TaskRun) -> Grid | None:
    """The table of the rates tried; None where the rate was not chosen.

    Args:
        run: a task's results.
    """
    choice = (run.results.get("finetune") or {}).get("choice")
    if not choice:
        return None
    before = choice.get("before")
    notes = [
        f"Judged by {choice['held_out']} training rows that nothing else uses: the best accuracy, then the lowest "
        "loss, then the smallest rate, among those that do not raise the loss of the demonstrations"
        + (f" ({before:.3f} before fine-tuning)" if before is not None else ""),
        # What a rate does to the demonstrations is measured for few of them: it costs a pass over all.
        "That loss is measured for the best rate, and for the next one as long as it rises",
        *([choice["note"].rstrip(".")] if choice.get("note") else []),
    ]
    return Grid(
        name=f"rates-{run.task}",
        title=f"Learning rates tried, {run.task}",
        header=("rate", "held-out accuracy", "held-out loss", "loss of the demonstrations", ""),
        rows=tuple(_row(trial, chosen=trial["rate"] == choice["rate"]) for trial in choice["trials"]),
        notes=tuple(notes),
    )


def _row(trial: dict[str, Any], *, chosen: bool) -> tuple[str, ...]:
    accuracy = trial.get("accuracy")
    return (
        f"{trial['rate']:g}",
        "–" if accuracy is None else f"{100 * accuracy:.1f}",
        _nats(trial.get("loss")),
        _nats(trial.get("demonstrations")),
        "chosen" if chosen else (trial.get("out") or "").rstrip("."),
    )


def _nats(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.3f}"
