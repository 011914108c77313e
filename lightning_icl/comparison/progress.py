"""What a run says while it goes on: lines, and its task, phase and time left in the bar of a terminal or as lines."""

import sys
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_icl import console

TUNING, QUERIES = "fine-tuning", "queries"
_EVERY = 30.0
"""Seconds between two lines of a phase."""


class PhaseBar(RichProgressBar):
    """The bar of a terminal, which names task and phase.

    Args:
        title: of the task.
        rows: what is looked at.
    """

    def __init__(self, title: str, rows: str = QUERIES) -> None:
        super().__init__()
        self._title, self._rows = title, rows

    @property
    def validation_description(self) -> str:
        """What stands beside the bar of the rows."""
        return f"{self._title}: {self._rows}"

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self._title}: {TUNING}"


class Lines:
    """Lines on standard error with the time left: one as soon as it can be told, then one now and then.

    Args:
        every: seconds between two lines.
    """

    def __init__(self, every: float = _EVERY) -> None:
        self._every = every
        self.start()

    def start(self) -> None:
        """Start the clock."""
        # Minus infinity: the first line comes as soon as there is something to say.
        self._started, self._said = time.perf_counter(), float("-inf")

    def tell(self, what: str, done: float, total: float) -> None:
        """Say how far something is, if it is time.

        Args:
            what: the line, without the time left.
            done: share or number done, more than 0.
            total: what it comes to.
        """
        now = time.perf_counter()
        if now - self._said < self._every:
            return
        self._said = now
        left = timedelta(seconds=round((now - self._started) / done * max(0.0, total - done)))
        with suppress(OSError, ValueError):  # standard error may be closed; the work goes on
            print(f"{what}, about {left} left", file=sys.stderr, flush=True)


class PhaseLines(L.Callback):
    """Lines of progress where there is no terminal.

    Args:
        title: of the task.
        rows: what is looked at.
        every: seconds between two lines.
    """

    def __init__(self, title: str, rows: str = QUERIES, every: float = _EVERY) -> None:
        self._title, self._rows, self._lines = title, rows, Lines(every)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock with the first batch."""
        if batch_idx == 0:
            self._lines.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Say how far fine-tuning is."""
        self._tell(trainer, f"{TUNING}, step", batch_idx + 1, int(trainer.num_training_batches))

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Start the clock with the first batch; the prompt has been run by then."""
        if batch_idx == 0:
            self._lines.start()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Say how far the rows are."""
        self._tell(trainer, f"{self._rows}, batch", batch_idx + 1, int(sum(trainer.num_val_batches)))

    def _tell(self, trainer: L.Trainer, phase: str, done: int, total: int) -> None:
        if trainer.is_global_zero:
            self._lines.tell(f"{self._title}: {phase} {done} of {total}", done, total)


def phase_display(title: str, rows: str = QUERIES) -> L.Callback:
    """The display that suits where the output goes."""
    # Rich redraws its bar, which in a file would be hundreds of lines.
    return PhaseBar(title, rows) if sys.stdout.isatty() else PhaseLines(title, rows)


@rank_zero_only
def say(text: str, style: str = "") -> None:
    """Print a line, by the first of several processes."""
    console.say(text, style)
