"""What a user can set about a comparison: the flags of the command line and the keys of its YAML files.

Imports nothing heavy: `--help` reads this file and must answer at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from lightning_icl.data.settings import DataSettings
from lightning_icl.errors import UserError, did_you_mean, shown
from lightning_icl.file_names import input_path
from lightning_icl.flags import read_configuration
from lightning_icl.lightning_parts import LoggerName, check_logger
from lightning_icl.measures import table_names
from lightning_icl.models.finding import BUILTIN
from lightning_icl.models.settings import ModelSettings
from lightning_icl.results import CONFIG
from lightning_icl.setting_ranges import check_accelerator, check_counts, check_devices, check_rate, check_seed

STRATEGIES = ("auto", "ddp")
PRECISIONS = ("32-true", "bf16-true", "bf16-mixed", "64-true")
_HOLD_ROUNDING = ("32-true", "64-true")
ALIASES: Mapping[str, str] = {"32": "32-true", "bf16": "bf16-true", "64": "64-true"}


@dataclass(frozen=True, kw_only=True)
class RunSettings(DataSettings, ModelSettings):
    """What every command that runs a model on tasks can be told."""

    precision: str = "32-true"
    """Number type of model and Trainer: 32-true, bf16-true, bf16-mixed or 64-true (in short 32, bf16, 64)."""
    accelerator: str = "auto"
    """Kind of device, as in Lightning's Trainer."""
    out: str | None = None
    """Folder for the run, one folder inside it for each task; without it runs/MODEL-DATE-TIME."""
    overwrite: bool = False
    """Replace a run that the output folder already holds."""

    def __post_init__(self) -> None:
        """Check what can be checked alone.

        Raises:
            UserError: a number out of range, or an unknown precision.
        """
        super().__post_init__()
        check_accelerator(self.accelerator)
        if self.accelerator == "mps":
            raise UserError(
                "--accelerator mps: metrics add up in float64, which Apple's GPUs lack. Leave it out, or give cpu."
            )
        if self.trainer_precision not in PRECISIONS:
            raise UserError(f"--precision {shown(self.precision)}: choose one of {', '.join(PRECISIONS)}.")

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return (self.model,)

    @property
    def trainer_precision(self) -> str:
        """The precision in Lightning's words."""
        return ALIASES.get(self.precision, self.precision)


@dataclass(frozen=True, kw_only=True)
class PromptSettings(RunSettings):
    """One prompt and one fine-tuning for each task."""

    shots: int = 32
    """Demonstrations asked for; where the context holds fewer, the number used is reported."""
    seed: int | Literal["published"] = 1
    """Seed of the shuffle that picks the demonstrations; `published` takes the paper's for its tasks and models."""
    lr: float | Literal["published", "auto"] | None = None
    """Learning rate of fine-tuning: a number, `published` for the paper's, or `auto` for one chosen on held-out
    training rows; without it the paper's for its tasks and models or the task file's own, else `auto`."""

    def __post_init__(self) -> None:
        """Check what can be checked alone.

        Raises:
            UserError: a number out of range.
        """
        super().__post_init__()
        check_counts(self, "shots")
        # The word `published` is looked up once the task is known.
        if isinstance(self.seed, int):
            check_seed("--seed", self.seed)
        if isinstance(self.lr, float | int):
            check_rate("--lr", self.lr)


@dataclass(frozen=True, kw_only=True)
class CompareSettings(PromptSettings):
    """Zero-shot, in-context and fine-tuned, side by side."""

    devices: int | str = 1
    """Devices on each machine, as in Lightning's Trainer."""
    num_nodes: int = 1
    """Machines, as in Lightning's Trainer."""
    strategy: str = "auto"
    """How devices work together: `auto` or `ddp`, one process for each device, as in Lightning's Trainer."""
    device_map: Literal["auto"] | None = None
    """`auto` spreads a model larger than one GPU over all GPUs of this machine, layer by layer, in one process."""
    logger: LoggerName | None = None
    """Also log losses and figures with a logger of Lightning's, csv and tensorboard into lightning_logs/TASK."""
    tables: list[str] = field(default_factory=lambda: list(table_names()))
    """Which of the paper's tables the printed summary shows."""
    controls: str | None = None
    """Controls to measure beside the comparison, names with commas between them, or `all` (compare only)."""
    control_lr: str | None = None
    """Learning rates of controls that are not to use that of fine-tuning: NAME=RATE with commas between them."""
    check_rounding: bool = False
    """Fine-tune once more from weights changed by float32 rounding, and save how far each figure moves (compare only);
    always done with the built-in models."""
    show_prompt: bool = False
    """Print the first zero-shot and in-context inputs token by token, and stop."""

    def __post_init__(self) -> None:
        """Check what can be checked alone.

        Raises:
            UserError: a number out of range, an unknown table, a strategy that does not serve, or a device map together
                with devices.
        """
        super().__post_init__()
        check_devices(self)
        check_logger(self.logger)
        for table in self.tables:
            if table not in table_names():
                raise UserError(f"--tables {table!r} is not known. {did_you_mean(table, table_names())}")
        if self.strategy not in STRATEGIES:
            raise UserError(
                f"--strategy {self.strategy[:80]!r}: choose one of {', '.join(STRATEGIES)}. Every process needs the "
                "whole model, and must last until the results are saved; those of spawn and notebook strategies do not."
            )
        # bfloat16 has 8 bits of precision: a change of 2^-23 would vanish in it.
        if self.check_rounding and self.trainer_precision not in _HOLD_ROUNDING:
            raise UserError(
                f"--check-rounding needs --precision 32 or 64: {self.precision} cannot hold float32 rounding."
            )
        # One process holds the whole model, so there is nothing to divide.
        if self.device_map is not None and (self.devices, self.num_nodes, self.accelerator) != (1, 1, "auto"):
            raise UserError(
                "--device-map spreads one process over the GPUs of this machine: leave --devices, --num-nodes and "
                "--accelerator out."
            )

    @property
    def checks_rounding(self) -> bool:
        """Whether the fine-tuning is checked for what rounding does to it."""
        return self.check_rounding or (self.model in BUILTIN and self.trainer_precision in _HOLD_ROUNDING)


@dataclass(frozen=True, kw_only=True)
class OneDeviceSettings(PromptSettings):
    """What looks closer at a few queries of one prompt and one fine-tuning, in one process."""

    task: str = "tiny-sst2"
    """What is asked: task names with commas between them, `builtin`, `paper`, or a YAML file of your own."""
    limit: int | None = 64
    """Number of queries, the first of the fixed shuffle."""

    def comparison(self) -> CompareSettings:
        """What it shares with a comparison."""
        return CompareSettings(**{field.name: getattr(self, field.name) for field in fields(PromptSettings)})


# What a fine-tuning was made on; how much to probe, and what a model may do, is asked anew.
_OF_FINETUNING = (
    "model", "revision", "adapter", "task", "data", "template", "separator", "chat", "shots", "seed", "lr",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ValidateSettings(CompareSettings):
    """Probe zero-shot and in-context learning, and a fine-tuning made before."""

    overlay: str | None = None
    """Folder of a `fit` run; model, tasks, demonstrations and template are those of that run unless they are given.
    Without it no fine-tuning is compared."""

    @classmethod
    def implied(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the overlay's folder says about settings that were not given.

        Args:
            given: by field.

        Raises:
            UserError: there is no such folder, or its configuration cannot be read.
        """
        # Only flags that were not typed are filled in, so the command line still wins.
        if given.get("overlay") is None:
            return {}
        folder = input_path(given["overlay"], "--overlay")
        if not folder.is_dir():
            raise UserError(f"--overlay {shown(given['overlay'])} is no folder. Give that of a `fit` run.")
        # A folder of overlays without settings is fine as long as all flags are given.
        if not (folder / CONFIG).is_file():
            return {}
        made = read_configuration(cls, folder / CONFIG)
        return {name: made[name] for name in _OF_FINETUNING if name in made and name not in given}
