"""Many processes give the same numbers as one: the same fine-tuning to the bit, and no query lost or counted twice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import launched
from lightning_icl.errors import UserError

PYTHON = [sys.executable, "-m", "lightning_icl.cli"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
SMALL = ["compare", "--task", "tiny-sst2", "--shots", "4", "--batch-tokens", "80", "--accelerator", "cpu"]


def start(program: list[str], folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program, *SMALL, "--out", str(folder), *flags],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        timeout=300,
    )


def run(program: list[str], folder: Path, *flags: str) -> tuple[dict[str, Any], str, str]:
    """Results, predictions and what was printed."""
    done = start(program, folder, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    out = folder / "tiny-sst2"
    return json.loads((out / "results.json").read_text()), (out / "predictions.jsonl").read_text(), done.stdout


def assert_same(one: object, other: object, where: str = "") -> None:
    """Every number within 1e-6, and everything else equal; times left out."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {"timing"}:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    elif isinstance(one, float):
        assert other == pytest.approx(one, abs=1e-6, rel=0, nan_ok=True), where
    else:
        assert one == other, where


def test_two_processes_equal_one(tmp_path: Path) -> None:
    # 101 queries: not divisible by two.
    flags = ("--limit", "101", "--controls", "shuffled-query,calibration")
    one, first, _ = run(PYTHON, tmp_path / "one", *flags)
    two, second, _ = run(PYTHON, tmp_path / "two", *flags, "--devices", "2")
    assert one["queries"]["count"] == 101
    assert one["controls"]["shuffled-query"]["sim_aou"]["raw"] is not None
    assert_same(one, two)
    assert first == second


def test_torchrun_with_more_processes_than_queries(tmp_path: Path) -> None:
    one, first, _ = run(PYTHON, tmp_path / "one", "--limit", "2")
    three, second, printed = run([*TORCHRUN, "3", "-m", "lightning_icl.cli"], tmp_path / "three", "--limit", "2")
    assert three["queries"] == one["queries"]
    assert three["accuracy"] == one["accuracy"]
    rows = [[json.loads(line) for line in text.splitlines()] for text in (first, second)]
    assert [row["index"] for row in rows[0]] == [row["index"] for row in rows[1]]
    # Rounding differs from one launch to another.
    for row, other in zip(*rows, strict=True):
        for name, scores in row["scores"].items():
            assert other["scores"][name] == pytest.approx(scores, abs=1e-5)
    assert printed.count("Results are in") == 1, "one process prints"


@pytest.mark.parametrize("failing", ["0", "1"])
def test_one_process_that_fails_stops_all_with_its_message(failing: str, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("failing_process.py"))]
    done = start(program, tmp_path, "--limit", "13", "--devices", "2", FAILING_RANK=failing)
    assert done.returncode != 0
    assert "NaN in query 7, on purpose." in done.stderr
    assert not (tmp_path / "tiny-sst2").exists(), "nothing half-finished is left"


def test_devices_that_contradict_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}.items():
        monkeypatch.setenv(name, value)
    assert launched(CompareSettings()) == (2, 3)
    with pytest.raises(UserError, match="torchrun started 2 processes"):
        launched(CompareSettings(devices=4))
