"""Two processes that share fine-tunings hold each what one process comes to, to the bit, for half the work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sharing_processes
from sharing_processes import MODELS, RATES


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one process holds, and what two do."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    sharing_processes.fit(one, 1)
    done = subprocess.run(
        [sys.executable, sharing_processes.__file__, str(two)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return one, two


@pytest.mark.parametrize(("variant", "name"), [(variant, name) for variant in MODELS for name in MODELS[variant][1]])
def test_two_processes_hold_what_one_comes_to(variant: str, name: str, folders: tuple[Path, Path]) -> None:
    one, *two = (
        json.loads((folder / f"{variant}, {name}, {rank}.json").read_text())
        for folder, rank in zip((folders[0], folders[1], folders[1]), (0, 0, 1), strict=True)
    )
    assert len(one["held"]["finetuned"]) + len(one["held"]["diverged"]) == len(RATES[name])
    for process in two:
        assert process["held"] == one["held"]
    assert sum(process["work"] for process in two) == one["work"], "no step is taken twice"
