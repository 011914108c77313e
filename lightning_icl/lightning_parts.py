"""Trainers and loggers of Lightning as settings ask for them; what it refuses is a user's mistake, found early."""

import logging
import os
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning_icl.errors import UserError

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.loggers import Logger

LoggerName = Literal["csv", "tensorboard", "wandb"]
LOGS = Path("lightning_logs")
"""Where Lightning logs by default; every run gets a version of its own there."""


def trainer_on(chosen: Mapping[str, Any], **arguments: Any) -> "L.Trainer":
    """A Trainer.

    Args:
        chosen: the arguments that a user chose, by name.
        arguments: all others.

    Raises:
        UserError: Lightning refuses them, or they ask for more processes than a processor has use for.
    """
    import lightning

    try:
        trainer = lightning.Trainer(**chosen, **arguments)
    except Exception as error:  # Lightning and torch raise a dozen kinds here
        flags = " ".join(
            f"--{name.replace('_', '-')} {value}" for name, value in chosen.items() if value not in ("auto", 1)
        )
        raise UserError(f"Lightning refuses {flags} here: {' '.join(str(error).split())[:500]}") from error
    devices, most = chosen.get("devices"), max(8, os.cpu_count() or 1)
    if trainer.strategy.root_device.type == "cpu" and isinstance(devices, int) and devices > most:
        raise UserError(f"--devices {devices}: on this processor they are processes, and at most {most} are of use.")
    return trainer


def quiet_lightning(*advice: str) -> None:
    """Keep Lightning's banners, progress bars of loading, and some advice of Lightning's off the terminal.

    Args:
        advice: patterns of warnings that a program's own protocol has settled.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # By message, so that warnings of the user's own code still show.
    for message in (*advice, ".*does not have many workers.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=message)


def check_logger(name: LoggerName | None) -> None:
    """Refuse a logger that is not installed.

    Raises:
        UserError: naming the package.
    """
    if name in ("tensorboard", "wandb") and find_spec(name) is None:
        raise UserError(f"--logger {name}: it is not installed. Install it with: pip install {name}")


def make_logger(name: LoggerName | None, title: str, folder: Path = LOGS) -> "Logger | None":
    """A logger of Lightning's; None where none is asked for.

    Args:
        name: which.
        title: of the run, which its logs are kept under.
        folder: where logs go.
    """
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

    if name == "csv":
        return CSVLogger(folder, name=title)
    if name == "tensorboard":
        return TensorBoardLogger(folder, name=title)
    return WandbLogger(name=title, save_dir=folder, project="lightning-icl") if name == "wandb" else None
