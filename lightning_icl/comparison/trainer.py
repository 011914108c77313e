"""The Trainer of a run, as the command line's settings ask for it."""

import os
import sys

import lightning as L
import torch
from lightning.pytorch.accelerators import MPSAccelerator

from lightning_icl.bfloat16_support import warn_of_slow_bfloat16
from lightning_icl.comparison.progress import QUERIES, phase_display
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.errors import UserError
from lightning_icl.lightning_parts import make_logger, quiet_lightning, trainer_on

DTYPES = {
    "32-true": torch.float32,
    "bf16-true": torch.bfloat16,
    "bf16-mixed": torch.float32,
    "64-true": torch.float64,
}


def _accelerator(name: str) -> str:
    """What Lightning is asked for: its `auto` would take Apple's GPUs, which lack the float64 that metrics sum in."""
    return "cpu" if name == "auto" and MPSAccelerator.is_available() else name


def make_trainer(
    settings: CompareSettings, callbacks: list[L.Callback], *, title: str = "", rows: str = QUERIES
) -> L.Trainer:
    """One epoch, no checkpoints, no logger; devices and strategy as asked.

    Args:
        settings: of the run.
        callbacks: what takes part.
        title: what the display of progress calls the work; without it there is none.
        rows: what that display calls the rows that are looked at.

    Raises:
        UserError: Lightning cannot have the devices here.
    """
    # Here too, since a Trainer may be made before any command has silenced anything.
    quiet()
    devices, nodes = launched(settings)
    device_options = {
        "accelerator": _accelerator(settings.accelerator),
        "devices": devices,
        "num_nodes": nodes,
        "strategy": settings.strategy,
        "precision": settings.trainer_precision,
    }
    trainer = trainer_on(
        device_options,
        max_epochs=1,
        # No title, no display: short fits inside a control would flicker.
        callbacks=[*callbacks, phase_display(title, rows)] if title else callbacks,
        enable_progress_bar=bool(title) and sys.stdout.isatty(),
        logger=make_logger(settings.logger, title) if title and settings.logger else False,
        log_every_n_steps=1,  # a prompt has fewer demonstrations than Lightning's default
        enable_checkpointing=False,
        enable_model_summary=False,
        # The data module divides the queries itself, and demonstrations are not divided at all.
        use_distributed_sampler=False,
    )
    warn_of_slow_bfloat16(trainer, "bf16-mixed")  # bf16-true runs as `models.fast_paths` has it
    return trainer


def check_trainer(settings: CompareSettings) -> None:
    """Find out whether Lightning can have the devices, before anything is loaded.

    Raises:
        UserError: it cannot.
    """
    make_trainer(settings, [])


def check_one_process(command: str, advice: str = "Start it by itself.") -> None:
    """Refuse torchrun's processes for a command that runs as one: each would do everything, into one folder.

    Args:
        command: its name.
        advice: what to do instead.

    Raises:
        UserError: torchrun started several.
    """
    started = int(os.environ.get("WORLD_SIZE", "1")) if _by_torchrun() else 1
    if started > 1:
        raise UserError(f"torchrun started {started} processes, but `{command}` runs as one. {advice}")


def quiet() -> None:
    """Keep Lightning's banners, and advice that this program's protocol has settled, off the terminal."""
    quiet_lightning(
        ".*length of `list` across ranks is zero.*",  # no validation inside fit
        ".*sync_dist=True.*",  # what is logged has been gathered already
        ".*in eval mode at the start of training.*",  # dropout is off on purpose
        ".*GPU available but not used.*",  # Apple's cannot be used, and others are taken unless the user said not to
    )


def launched(settings: CompareSettings) -> tuple[int | str, int]:
    """Devices on each machine, and machines: torchrun's where it started this process, else those of the settings.

    Raises:
        UserError: --devices asks for another number than torchrun started.
    """
    # torchrun has started the processes already, so its numbers are the true ones.
    if not _by_torchrun():
        return settings.devices, settings.num_nodes
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if settings.device_map is not None and world > 1:
        raise UserError(f"--device-map spreads one process over this machine's GPUs; torchrun started {world}.")
    # 1 is the default, so it is no contradiction.
    if settings.devices not in (1, local, "auto"):
        raise UserError(
            f"--devices {settings.devices}: torchrun started {local} processes on this machine. Leave --devices out, "
            f"or start torchrun with --nproc-per-node {settings.devices}."
        )
    return local, world // local


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
