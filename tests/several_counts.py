"""A program that makes the same comparison over several numbers of queries, one after another: for test_processes."""

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_icl.cli import main


def run(out: Path, counts: Sequence[str], arguments: Sequence[str]) -> None:
    """One comparison for each count, in a folder of its name; the last chooses its learning rate on held-out rows."""
    for count in counts:
        rate = ["--lr", "auto"] if count == counts[-1] else []
        main([*arguments, *rate, "--limit", count, "--out", str(out / count)])


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
