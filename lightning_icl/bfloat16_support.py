"""Whether the processor multiplies bfloat16 by instruction, and what to do where it does not."""

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import lightning as L


def multiplies_bfloat16() -> bool:
    """Whether bfloat16 has matrix instructions here; without them a product takes many times as long as in float32.

    Known from the flags of x86 processors; others, and versions of PyTorch that do not report flags, count as able.
    """
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities.get("architecture") != "x86_64":
        return True
    return any(capabilities.get(flag, False) for flag in ("avx512_bf16", "amx_bf16"))


def multipliable(*states: Tensor) -> tuple[Tensor, ...]:
    """The states as they are, or in float32 where the processor would multiply them many times as slowly."""
    # The first stands for all: they are multiplied with each other, so they are of one type.
    slow = states[0].dtype == torch.bfloat16 and states[0].device.type == "cpu" and not multiplies_bfloat16()
    return tuple(item.float() for item in states) if slow else states


def warn_of_slow_bfloat16(trainer: "L.Trainer", *slow: str) -> None:
    """Warn, once a process, where a Trainer would compute in bfloat16 on a processor without instructions for it.

    Args:
        trainer: of any precision.
        slow: the precisions that are slow in what it will run.
    """
    # The strategy knows the device that `auto` came to.
    on_cpu = trainer.strategy.root_device.type == "cpu"
    if trainer.precision in slow and on_cpu and not multiplies_bfloat16():
        _warn_once(str(trainer.precision))


# Cached by precision: every Trainer of a run would repeat it.
@cache
def _warn_once(precision: str) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_warn

    rank_zero_warn(
        f"Precision {precision} was asked for, but this processor has no bfloat16 instructions: matrix products take "
        "many times as long as in float32 here. Use 32-true."
    )
