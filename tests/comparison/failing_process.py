"""A program like the command line's in which probing fails on one process: run by test_processes.py."""

import os
import sys

from lightning_icl.cli import main
from lightning_icl.errors import NumericalError
from lightning_icl.probing.observation import View


def fail(*_: object) -> None:
    raise NumericalError("NaN in query 7, on purpose.")


if __name__ == "__main__":
    if os.environ.get("LOCAL_RANK", "0") == os.environ["FAILING_RANK"]:
        View.observe = fail
    main(sys.argv[1:])
