"""An experiment in pieces that several processes of one machine share, each piece made by one of them.

A process takes the first piece that nobody works on, under a lock that dies with it: what a killed process held is
taken up by another. A piece that is finished costs its next holder nothing but reading what came out, so that in the
end every process has everything, as if it had been alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lightning_icl.errors import InUseError
from lightning_icl.saving.workspace import held

WAIT = 3600.0
"""Seconds to wait for another process that makes what all need, or writes what came out."""
_PAUSE = 1.0  # seconds between two looks at pieces that others hold


class Piece(NamedTuple):
    """A part of the experiment that one process makes."""

    name: str
    """Of its lock, so that it must do as the name of a file."""
    make: Callable[[Mapping[str, Any]], Any]
    """Given what came out of other pieces by name, makes what is not made yet, and reads the rest."""
    after: str | None = None
    """The piece that must be finished before."""


def run_shared(pieces: Sequence[Piece], out: Path, show: Callable[[str], None]) -> dict[str, Any]:
    """What comes out of every piece, made here or by another process that is waited for.

    Args:
        pieces: in the order in which they are to be taken; none comes before what it waits for.
        out: the experiment's folder, where the locks are.
        show: prints a line.

    Raises:
        UserError: of a piece that this process made, which another may take up.
    """
    done: dict[str, Any] = {}
    waiting = False
    while len(done) < len(pieces):
        for piece in pieces:
            if piece.name not in done and (piece.after is None or piece.after in done):
                with _taken(out, piece.name) as own:
                    if own:
                        show(f"{len(done) + 1} of {len(pieces)}: {piece.name}")
                        done[piece.name] = piece.make(done)
                        waiting = False
                        break
        else:
            if not waiting:
                show(f"waiting for {len(pieces) - len(done)} that other processes hold, or that wait for these")
            waiting = True
            time.sleep(_PAUSE)
    return done


@contextmanager
def _taken(out: Path, name: str) -> Iterator[bool]:
    """Whether this process has a piece alone, to the end of the block."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(out, f"piece-{name}"))  # a training holds its own name
            own = True
        # Outside the block, so that a lock which the piece itself lacks is its failure and no other holder.
        except InUseError:
            own = False
        yield own
