"""The log of a training: rows are kept in its checkpoint, so that an interrupted one has the rows of any other.

Rows go by step. What was done again after an interrupt replaces what was done before, and nothing is missing or twice.
"""

import csv
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

LOG = "training_log.csv"
_EVERY = 10  # steps between rows


class TrainingLog(Callback):
    """Collects what the module logs, a row at every tenth step and at every validation.

    Args:
        steps: of the whole training.
    """

    def __init__(self, steps: int) -> None:
        self._every = min(_EVERY, steps)
        self.rows: dict[int, dict[str, float]] = {}
        """By step, from 0."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the figures of a step."""
        # Only whole steps: parts of one would be rows of the same number.
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole and trainer.global_step % self._every == 0:
            self._keep(trainer, getattr(pl_module, "measured", ()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures of a validation."""
        self._keep(trainer, [name for name in trainer.callback_metrics if name.startswith("validation_")])

    def _keep(self, trainer: Trainer, names: Any) -> None:
        # `global_step` has been raised already; rows count from 0.
        row = self.rows.setdefault(trainer.global_step - 1, {})
        row.update({name: float(trainer.callback_metrics[name]) for name in names})

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, for the checkpoint."""
        # Keys as text, since a checkpoint may be read without unpickling arbitrary objects.
        return {"rows": {str(step): dict(row) for step, row in self.rows.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's rows."""
        self.rows = {int(step): dict(row) for step, row in state_dict["rows"].items()}

    def write(self, folder: Path) -> None:
        """Write the rows as `training_log.csv`."""
        names = sorted({name for row in self.rows.values() for name in row})
        with (folder / LOG).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["step", *names])
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))
