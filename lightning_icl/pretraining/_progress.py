"""How far a training is: tokens a second and the time left, in the bar of a terminal or as lines elsewhere."""

import sys
import time
from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar

from lightning_icl.pretraining.settings import PretrainSettings


class Speed:
    """Tokens a second and time left, over the steps of this run."""

    def __init__(self, settings: PretrainSettings) -> None:
        self._settings, self._first, self._started = settings, 0, time.perf_counter()

    def start(self, step: int) -> None:
        """Begin to count at a step."""
        self._first, self._started = step, time.perf_counter()

    def words(self, step: int) -> dict[str, str]:
        """Both figures, in words."""
        # Nothing has been measured yet in this run, whatever step it resumes at.
        done = step - self._first
        if done <= 0:
            return {}
        seconds = (time.perf_counter() - self._started) / done
        tokens = self._settings.batch * self._settings.block / seconds
        left = timedelta(seconds=round(seconds * (self._settings.steps - step)))
        return {"tokens/s": f"{tokens:,.0f}", "left": str(left)}


class SpeedBar(RichProgressBar):
    """The bar of a terminal."""

    def __init__(self, settings: PretrainSettings) -> None:
        super().__init__()
        self._speed = Speed(settings)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._speed.start(trainer.global_step)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        # `v_num` is the logger's version number, which says nothing of the training.
        figures = {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
        return {**figures, **self._speed.words(trainer.global_step)}


class SpeedLines(Callback):
    """A line at every checkpoint, where there is no terminal."""

    def __init__(self, settings: PretrainSettings) -> None:
        self._settings, self._speed = settings, Speed(settings)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._speed.start(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line when it is time."""
        step, last = trainer.global_step, self._settings.steps
        # With accumulation a step ends only at the last of its batches.
        whole = (batch_idx + 1) % self._settings.accumulate == 0
        if whole and trainer.is_global_zero and (step % self._settings.checkpoint_every == 0 or step == last):
            losses = {name: f"{float(value):.3f}" for name, value in trainer.callback_metrics.items()}
            parts = {**losses, **self._speed.words(step)}
            print(f"step {step:,} of {last:,}:", ", ".join(f"{name} {value}" for name, value in parts.items()))


def speed_display(settings: PretrainSettings) -> Callback:
    """The display that suits where the output goes."""
    return SpeedBar(settings) if sys.stdout.isatty() else SpeedLines(settings)
