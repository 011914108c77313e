"""Lightning's loggers by name, for those who follow runs with them; results are saved without any."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightning_icl.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

LoggerName = Literal["csv", "tensorboard", "wandb"]
LOGS = Path("lightning_logs")
"""Where Lightning logs by default; every run gets a version of its own there."""


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
