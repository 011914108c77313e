"""When and on what a run was made: what figures of another machine may differ by."""

import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn


def environment(model: nn.Module) -> dict[str, Any]:
    """Date, hardware and threads, as `results.json` records them.

    Args:
        model: where it stands when the figures are made.
    """
    # Where the model stands, not what was asked for: `auto` leaves the choice to Lightning.
    device = next(model.parameters()).device
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": torch.distributed.get_world_size() if distributed else 1,
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
