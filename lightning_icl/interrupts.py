"""Interrupts and requests to terminate: both stop every command in the same way, whatever runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), as batch systems do when time is up."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated`, once, so that everything in use is given back; a handler of others is kept."""
    # Only the main thread may set handlers, and a handler of the user's own is respected.
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    ending = False

    def end(_: int, __: FrameType | None) -> None:
        nonlocal ending
        if not ending:  # a second one must not disturb what the first has begun
            ending = True
            raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise the KeyboardInterrupt that Lightning's Trainer has turned into SystemExit."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            # The exit was only Lightning's way of passing the interrupt on.
            raise ended.__context__ from None
        raise
