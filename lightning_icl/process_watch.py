"""The processes of one run end together: where one dies, the others say which and stop within seconds.

Lightning starts the others from the first. Without this a process that waits for a dead one waits for minutes.
Processes that torchrun or SLURM started are watched by these.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from subprocess import Popen
from typing import TYPE_CHECKING

from lightning_icl.errors import UserError
from lightning_icl.interrupts import interruptible

if TYPE_CHECKING:
    import lightning as L

_MAIN = "LIGHTNING_ICL_MAIN_PROCESS"
"""Name of the variable by which processes know who started them."""
_LOOK, _GRACE, _SHOWS = 0.2, 2.0, 6.0
"""Seconds between two looks; in which a process may end by itself; and in which the death behind a failure shows."""
_STARTED: list[Popen[bytes]] = []
"""Processes that this one has started, by rank from 1."""


@contextmanager
def guarded(trainer: "L.Trainer") -> Iterator[None]:
    """Around a Trainer's run: interrupts stay interrupts, and where one process of the run dies all end.

    This process then ends with a message and status 1.

    Args:
        trainer: runs inside the context.
    """
    with interruptible():
        # torchrun watches its processes itself.
        if trainer.world_size == 1 or "TORCHELASTIC_RUN_ID" in os.environ:
            yield
        else:
            with _watching(trainer):
                yield


@contextmanager
def _watching(trainer: "L.Trainer") -> Iterator[None]:
    # A thread, since the main one may hang in a collective call that nothing interrupts.
    died = _watched(trainer)
    over = threading.Event()
    threading.Thread(target=_watch, args=(died, over), daemon=True, name="process-watch").start()
    try:
        yield
    except UserError:  # a message of its own
        raise
    except Exception:
        # A failed collective call is usually the echo of a death that explains it.
        if _told(died, over):
            sys.exit(1)
        raise
    finally:
        over.set()


def _watched(trainer: "L.Trainer") -> Callable[[], str]:
    """A function that says which other process has died; nothing while all live."""
    count = trainer.world_size
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[_MAIN] = str(os.getpid())  # before the others are started
        return lambda: _dead_child(_children(trainer), count)
    # A child whose parent dies gets another parent, which is how it notices.
    main = int(os.environ.get(_MAIN, os.getppid()))
    return lambda: "" if os.getppid() == main else f"process 0 of {count}, which started this one, has died"


def _children(trainer: "L.Trainer") -> Sequence[Popen[bytes]]:
    """The processes that Lightning has started; its own observer, which kills without a message, is disarmed."""
    started = getattr(trainer.strategy.launcher, "procs", [])
    _STARTED.extend(process for process in started if process not in _STARTED)
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            vars(thread)["_child_processes"] = []
    return _STARTED


def _dead_child(children: Sequence[Popen[bytes]], count: int) -> str:
    for rank, process in enumerate(children, start=1):
        status = process.poll()
        # Negative: killed by the signal of that number.
        if status is not None and status < 0:
            return f"process {rank} of {count} was killed ({signal.Signals(-status).name})"
        if status:
            return f"process {rank} of {count} ended with status {status}; its message stands above, if it left one"
    return ""


def _watch(died: Callable[[], str], over: threading.Event) -> None:
    """End the process where another has died: its main thread may hang in a call that nothing interrupts."""
    while not over.wait(_LOOK):
        if reason := died():
            over.wait(_GRACE)  # it may have noticed
            if not over.is_set():
                _say(reason)
                os._exit(1)  # not `sys.exit`, which would wait for the hanging main thread
            return


def _told(died: Callable[[], str], over: threading.Event) -> bool:
    """Wait a moment to see whether a dead process caused a failure; if so say it, stop the others and return True."""
    # The watching thread must not end the process while this one waits.
    over.set()
    until = time.monotonic() + _SHOWS
    while time.monotonic() < until:
        if reason := died():
            _say(reason)
            return True
        time.sleep(_LOOK)
    return False


def _say(reason: str) -> None:
    for process in _STARTED:
        process.kill()
    print(f"lightning-icl: error: {reason}. All processes of the run are stopped.", file=sys.stderr, flush=True)
