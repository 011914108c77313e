"""One folder in place of another: in one step where the system can, else in two that the next start can complete."""

import ctypes
import os
import sys
from pathlib import Path

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def put_in_place(new: Path, target: Path, old: Path) -> None:
    """Move a folder to where another may stand.

    Args:
        new: the folder.
        target: where it goes.
        old: where what stood there is left, on the same file system.

    Raises:
        OSError: it cannot be done; what stood there stands there still.
    """
    if not target.exists():
        os.rename(new, target)
        return
    # One step on Linux: at no moment is the target missing.
    if _exchange(new, target):
        return
    old.parent.mkdir(parents=True, exist_ok=True)
    # Two steps elsewhere: what stood there is set aside, where the next start finds it after a kill.
    os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        # Put back, so that a failure leaves things as they were.
        os.rename(old, target)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    # Older kernels and some file systems refuse; the caller then takes two steps.
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0
