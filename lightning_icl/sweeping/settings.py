"""What a user can set about a sweep: the flags of `lightning-icl sweep`.

Imports nothing heavy: `--help` reads this file and must answer at once.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

from lightning_icl.comparison.settings import CompareSettings, RunSettings
from lightning_icl.errors import UserError, shown
from lightning_icl.setting_ranges import check_count, check_counts, check_rate, check_seed

Number = TypeVar("Number", int, float)

PAPER_RATES = tuple(float(f"{digit}e-{power}") for power in (4, 3, 2, 1) for digit in range(1, 10))


@dataclass(frozen=True, kw_only=True)
class SweepSettings(RunSettings):
    """Many comparisons in one plan."""

    model: str = "builtin"
    """Models with commas between them: `builtin`, hub names, folders, or `random:NAME` for fresh weights."""
    accelerator: str = "auto"
    """Kind of device, as in Lightning's Trainer; each process uses one device."""
    out: str = "runs/sweep"
    """Folder of the sweep. Runs finished there are kept, and the plan may grow by models, tasks and rates."""
    overwrite: bool = False
    """Measure everything again and replace finished runs of the plan."""
    seeds: list[int] | int | str = "1,2,3,4,5,6,7"
    """Seeds of the shuffles that pick the demonstrations, with commas between them."""
    shots: list[int] | int | str = "32"
    """Numbers of demonstrations, with commas between them; where the context holds fewer, fewer are used."""
    lrs: list[float] | float | str = "paper"
    """Learning rates of fine-tuning with commas between them, or `paper`: 1 to 9 times 0.1, 0.01, 0.001 and 0.0001."""
    select: Literal["heldout", "paper"] = "heldout"
    """What chooses seed and rate: fine-tuned accuracy on rows held out of the training split, or on the reported
    queries as the paper did."""
    heldout: int = 256
    """Rows of the training split to choose on; they are in no demonstration of the plan. Unused by `--select paper`."""
    overlay_memory: float = 4.0
    """Gigabytes for fine-tuned weights held at once. Where a task's need more, they are observed in several passes,
    each of which observes the zero-shot and in-context conditions again; and fewer take their steps together."""
    part: str | None = None
    """This process's share of the plan, I/N with I from 0 to N-1, such as $SLURM_ARRAY_TASK_ID/8."""
    dry_run: bool = False
    """Print the plan and its cost, the time estimated from a short measurement on each model, and stop."""
    collect: bool = False
    """Only make the tables of the runs that are finished."""

    def __post_init__(self) -> None:
        """Check what can be checked alone.

        Raises:
            UserError: a list that cannot be read, or a number out of range.
        """
        super().__post_init__()
        check_counts(self, "heldout")
        for shots in self.shot_numbers:
            check_count("--shots", shots)
        for seed in self.seed_numbers:
            check_seed("--seeds", seed)
        for rate in self.rates:
            check_rate("--lrs", rate)
        if not 0 < self.overlay_memory < 2**20:
            raise UserError(
                f"--overlay-memory {self.overlay_memory:g}: it must be more than 0 and fewer than a million."
            )
        # Properties raise where they cannot be read.
        _ = self.models, self.share

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return _different("--model", [name.strip() for name in self.model.split(",") if name.strip()])

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """Seeds in the order given."""
        return _numbers("--seeds", self.seeds, int)

    @property
    def shot_numbers(self) -> tuple[int, ...]:
        """Numbers of demonstrations asked for, in the order given."""
        return _numbers("--shots", self.shots, int)

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates in the order given."""
        # The paper's 36 rates.
        return PAPER_RATES if self.lrs == "paper" else _numbers("--lrs", self.lrs, float)

    @property
    def share(self) -> tuple[int, int]:
        """Number of this process's part, and of how many.

        Raises:
            UserError: it is no part.
        """
        if self.part is None:
            return 0, 1
        numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", self.part)
        if numbers is None or not int(numbers[1]) < int(numbers[2]):
            raise UserError(f"--part {shown(self.part)}: give I/N with I from 0 to N-1, such as 0/4.")
        return int(numbers[1]), int(numbers[2])

    def compare(self, model: str) -> CompareSettings:
        """The settings that every run on a model shares, as a comparison has them."""
        shared = {field.name: getattr(self, field.name) for field in fields(RunSettings)}
        return CompareSettings(**{**shared, "model": model})


def _numbers(flag: str, value: "list[Number] | Number | str", kind: Callable[[str], Number]) -> tuple[Number, ...]:
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        return _different(flag, [kind(str(word)) for word in words])
    except ValueError as error:
        # A UserError is a ValueError with words of its own.
        if isinstance(error, UserError):
            raise
        raise UserError(f"{flag} {shown(value)}: give numbers with commas between them.") from error


Value = TypeVar("Value")


def _different(flag: str, values: list[Value]) -> tuple[Value, ...]:
    # Twice the same value would be two runs in one folder.
    if not values or len(set(values)) < len(values):
        raise UserError(f"{flag}: give at least one, and none twice.")
    return tuple(values)
