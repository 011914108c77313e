"""A program like the command line's in which one process fails or dies, by rank and by place: see test_processes.py."""

import os
import signal
import sys

from lightning_icl.cli import main
from lightning_icl.errors import NumericalError
from lightning_icl.models import subject
from lightning_icl.probing import group
from lightning_icl.probing.observation import View


def fail(*_: object) -> None:
    raise NumericalError("NaN in query 7, on purpose.")


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if os.environ.get("LOCAL_RANK", "0") == os.environ["FAILING_RANK"]:
        place = os.environ.get("DYING_AT")
        if place == "loading":
            subject.load_model = die
        elif place == "sharing":
            group.handed_round = die
        else:
            View.observe = fail if place is None else die
    main(sys.argv[1:])
