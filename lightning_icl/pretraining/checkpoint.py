"""Checkpoints of an unfinished training: written beside the last one, which stays until the new one is whole."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_icl.errors import OutputError
from lightning_icl.pretraining._whole import LAST, PART, PREVIOUS
from lightning_icl.pretraining.settings import PretrainSettings


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes into the same folder under another name, to the disk, before the last checkpoint gives way."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OutputError: it cannot be written; the last one is still there.
        """
        folder = Path(path).parent
        part = folder / PART
        try:
            with part.open("wb") as file:
                # To the disk before the rename: a crash must not leave a new name with old content.
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            # The last one becomes the previous one only once the new one is whole.
            if (folder / LAST).exists():
                os.replace(folder / LAST, folder / PREVIOUS)
            os.replace(part, folder / LAST)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as the latter
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise OutputError(
                f"{str(folder / LAST)!r} cannot be written: {getattr(error, 'strerror', None) or error}. The training "
                "goes on from the checkpoint before with the same command, once there is room."
            ) from error


class LastCheckpoint(Checkpoint):
    """Saves every so many steps and at the last one: after the validation of a step, where it has one.

    Args:
        settings: of the training.
        folder: where to.
        validating: whether there is held-out text.
    """

    def __init__(self, settings: PretrainSettings, folder: Path, *, validating: bool) -> None:
        self._settings, self._path, self._validating = settings, folder / LAST, validating

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, unless the validation of this step is still to come: a resumed training would leave it out."""
        # A validation at this step saves afterwards, with its figures.
        whole = (batch_idx + 1) % self._settings.accumulate == 0
        every = min(self._settings.validate_every, self._settings.steps)
        if whole and not (self._validating and trainer.global_step % every == 0):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save with the figures of this validation."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if step % self._settings.checkpoint_every == 0 or step == self._settings.steps:
            trainer.save_checkpoint(self._path)
