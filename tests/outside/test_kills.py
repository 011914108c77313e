"""A few of the kills that `python -m benchmarks.kills` makes by the hundred: afterwards all is as it should be."""

import os
import subprocess
import sys
from pathlib import Path


def test_commands_killed_anywhere_are_completed_by_the_same_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", "--count", "3", "--seed", "2",
         "--commands", "compare --overwrite", "sweep", "pretrain"],
        cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 trials" in run.stdout
    assert "0 with something wrong" in run.stdout
