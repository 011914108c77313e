"""The Trainer of a run, as the command line's settings ask for it."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
import transformers
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.strategies import DDPStrategy

from lightning_icl.comparison.settings import CompareSettings

if TYPE_CHECKING:
    from torch.distributed import GradBucket

DTYPES = {
    "32-true": torch.float32,
    "bf16-true": torch.bfloat16,
    "bf16-mixed": torch.float32,
    "64-true": torch.float64,
}


def make_trainer(settings: CompareSettings, callbacks: list[L.Callback], *, progress: bool = True) -> L.Trainer:
    """One epoch, no checkpoints, no logger; devices and strategy as asked.

    Args:
        settings: of the run.
        callbacks: what takes part.
        progress: whether to show a rich progress bar, in a terminal.
    """
    quiet()
    terminal = progress and sys.stdout.isatty()
    return L.Trainer(
        max_epochs=1,
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=_strategy(settings),
        precision=settings.trainer_precision,  # type: ignore[arg-type]
        callbacks=[*callbacks, RichProgressBar()] if terminal else callbacks,
        enable_progress_bar=terminal,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def interruptible(trainer: L.Trainer) -> Iterator[None]:
    """An interrupt inside the Trainer, which it turns into an exit, reaches the caller as an interrupt."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def quiet() -> None:
    """Keep Lightning's banners, and advice that this program's protocol has settled, off the terminal."""
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*length of `list` across ranks is zero.*",  # no validation inside fit
        ".*in eval mode at the start of training.*",  # dropout is off on purpose
    ):
        warnings.filterwarnings("ignore", message=message)


def _strategy(settings: CompareSettings) -> Any:
    """Lightning's own, but DDP without gradient traffic: every process takes the same steps on the same examples."""
    many = (isinstance(settings.devices, int) and settings.devices > 1) or settings.num_nodes > 1
    if settings.strategy == "ddp" or (settings.strategy == "auto" and many):
        return DDPStrategy(ddp_comm_hook=keep_own_gradients)
    return settings.strategy


def keep_own_gradients(_: object, bucket: "GradBucket") -> torch.futures.Future[torch.Tensor]:
    """A DDP communication hook that communicates nothing."""
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future
