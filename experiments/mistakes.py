"""What a user of an experiment's command sees of a mistake: one line, and status 2."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_icl.errors import UserError


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """End the program with the message of a UserError instead of a traceback."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
