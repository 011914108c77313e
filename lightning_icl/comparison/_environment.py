"""When and on what a run was made: what figures of another machine may differ by."""

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch

from lightning_icl.data.batches import batch_budget
from lightning_icl.data.module import ICLDataModule


def environment(trainer: L.Trainer, data: ICLDataModule) -> dict[str, Any]:
    """Date, hardware, threads and size of batches, as `results.json` records them.

    Args:
        trainer: has made the figures.
        data: of the task.
    """
    # Where it has worked: `auto` leaves the choice to Lightning, and the model stands on the processor again by now.
    device = trainer.strategy.root_device
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": trainer.world_size,
        "batch_tokens": batch_budget(data.batch_tokens, data.queries, device, trainer.world_size),
    }


def processor() -> str:
    """Name of the processor, as its maker calls it where the system says so."""
    cpuinfo = Path("/proc/cpuinfo")
    # `platform.processor()` says no more than "x86_64" on most Linux systems.
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
