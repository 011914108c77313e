"""Trainers on the devices that settings ask for; what Lightning cannot have here is a user's mistake, found early."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import UserError

if TYPE_CHECKING:
    import lightning as L


def trainer_on(asked: Mapping[str, Any], **arguments: Any) -> "L.Trainer":
    """A Trainer.

    Args:
        asked: the arguments that a user chose, by name.
        arguments: all others.

    Raises:
        UserError: Lightning refuses them, or they ask for more processes than a processor has use for.
    """
    import lightning

    try:
        trainer = lightning.Trainer(**asked, **arguments)
    except Exception as error:  # Lightning and torch raise a dozen kinds here
        flags = " ".join(
            f"--{name.replace('_', '-')} {value}" for name, value in asked.items() if value not in ("auto", 1)
        )
        raise UserError(f"Lightning refuses {flags} here: {' '.join(str(error).split())[:500]}") from error
    devices, most = asked.get("devices"), max(8, os.cpu_count() or 1)
    if trainer.strategy.root_device.type == "cpu" and isinstance(devices, int) and devices > most:
        raise UserError(f"--devices {devices}: on this processor they are processes, and at most {most} are of use.")
    return trainer
