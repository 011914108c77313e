"""Ranges of numbers among settings, and the devices that can be asked for: what is checked when settings are made."""

import os
from typing import Protocol

from lightning_icl.errors import UserError, did_you_mean, shown

LARGEST_COUNT = 2**31 - 1
LARGEST_SEED = 2**32 - 1
"""As NumPy has it."""
ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps", "tpu")
_MOST_DEVICES = 1024
# Variables by which whatever started the processes of several machines says where the first one is.
_LAUNCHERS = ("MASTER_ADDR", "SLURM_NTASKS", "LSB_JOBID", "KUBERNETES_PORT", "TORCHELASTIC_RUN_ID")


class Devices(Protocol):
    """Settings that name devices of several processes."""

    @property
    def accelerator(self) -> str:
        """Kind of device."""

    @property
    def devices(self) -> int | str:
        """Devices on each machine."""

    @property
    def num_nodes(self) -> int:
        """Machines."""


def check_counts(settings: object, *names: str) -> None:
    """Check that fields which count something are at least 1, and that a machine can count so far; None counts nothing.

    Raises:
        UserError: one of them is out of range.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            check_count(f"--{name.replace('_', '-')}", value)


def check_count(flag: str, value: int) -> None:
    """Check one count.

    Raises:
        UserError: it is out of range.
    """
    if value < 1:
        raise UserError(f"{flag} {value}: it must be at least 1.")
    if value > LARGEST_COUNT:
        raise UserError(f"{flag} {value}: it must be at most {LARGEST_COUNT:,}.")


def check_rate(flag: str, rate: float) -> None:
    """Check a learning rate.

    Raises:
        UserError: it is no positive number.
    """
    if not 0 < rate < float("inf"):
        raise UserError(f"{flag} {rate}: the learning rate must be a positive number.")


def check_seed(flag: str, seed: int) -> None:
    """Check that a number can seed a shuffle.

    Raises:
        UserError: it cannot.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"{flag} {seed}: a seed is a whole number from 0 to {LARGEST_SEED:,}.")


def check_accelerator(name: str) -> None:
    """Check that Lightning knows a kind of device.

    Raises:
        UserError: it does not.
    """
    if name not in ACCELERATORS:
        raise UserError(f"--accelerator {shown(name)}: there is no such device. {did_you_mean(name, ACCELERATORS)}")


def check_devices(settings: Devices) -> None:
    """Check devices and machines as far as it can be done without looking at them.

    Raises:
        UserError: naming the flag.
    """
    check_accelerator(settings.accelerator)
    check_counts(settings, "num_nodes")
    devices = settings.devices
    words = str(devices).split(",")
    # Numbers with commas between them name GPUs, as in Lightning's Trainer.
    numbers = isinstance(devices, str) and all(word.strip().isdecimal() for word in words)
    count = len(words) if numbers else devices if isinstance(devices, int) else 1
    if not (numbers or devices in ("auto", -1) or (isinstance(devices, int) and devices > 0)):
        raise UserError(
            f"--devices {shown(devices, quoted=False)}: give how many, `auto` for all, or numbers of GPUs with commas "
            "between them, such as 0,2."
        )
    if count > _MOST_DEVICES:
        raise UserError(f"--devices {devices}: no machine has more than {_MOST_DEVICES:,}.")
    # Lightning would wait for the other machines until a timeout of half an hour.
    if settings.num_nodes > 1 and not any(name in os.environ for name in _LAUNCHERS):
        raise UserError(
            f"--num-nodes {settings.num_nodes}: nothing says where the other machines are. Start the command with "
            "torchrun or SLURM, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each."
        )
