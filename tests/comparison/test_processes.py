"""Many processes give the same numbers as one: the same fine-tuning to the bit, and no query lost or counted twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import several_counts

from lightning_icl.cli import main
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import launched
from lightning_icl.errors import UserError
from lightning_icl.front import calls as front

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
SMALL = ["compare", "--task", "tiny-sst2", "--shots", "4", "--batch-tokens", "80", "--accelerator", "cpu"]
COMPARED = [*SMALL, "--controls", "shuffled-query,calibration"]
COUNTS = ("1", "2", "5", "101")  # none of them more than its processes can share evenly


def start(program: Sequence[str], *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program, *arguments],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        timeout=300,
        start_new_session=True,  # signals among these processes stay among them
    )


def saved(folder: Path) -> tuple[dict[str, Any], str]:
    """Results and predictions."""
    out = folder / "tiny-sst2"
    return json.loads((out / "results.json").read_text()), (out / "predictions.jsonl").read_text()


def assert_same(one: object, other: object, where: str = "") -> None:
    """Every number within 1e-6, and everything else equal; times left out."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - {"timing", "environment"}:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    elif isinstance(one, float):
        assert other == pytest.approx(one, abs=1e-6, rel=0, nan_ok=True), where
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, a folder for each number of queries."""
    out = tmp_path_factory.mktemp("one")
    several_counts.run(out, COUNTS, COMPARED)
    return out


@pytest.mark.parametrize("processes", ["2", "3"])
def test_many_processes_equal_one(processes: str, one: Path, tmp_path: Path) -> None:
    program = [str(HERE.parent / "several_counts.py"), str(tmp_path), ",".join(COUNTS), *COMPARED]
    done = start(TORCHRUN, *program) if processes == "3" else start([sys.executable], *program, "--devices", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, "processes without queries stay silent"
    assert done.stdout.count("Results are in") == len(COUNTS), "one process prints"
    for count in COUNTS:
        (expected, rows), (found, other_rows) = saved(one / count), saved(tmp_path / count)
        assert found["queries"]["count"] == int(count)
        assert_same(expected, found)
        assert (found["finetune"].get("choice") is not None) == (count == COUNTS[-1]), "a rate chosen by all together"
        assert count == "1" or found["controls"]["shuffled-query"]["sim_aou"]["raw"] is not None
        assert other_rows == rows, "each query's scores, to the bit"


def assert_ended_together(done: subprocess.CompletedProcess[str], out: Path, began: float) -> None:
    assert done.returncode not in (0, -signal.SIGKILL), "a message comes with the end"
    assert "Traceback" not in done.stderr
    assert not (out / "tiny-sst2").exists(), "nothing half-finished is left"
    assert time.monotonic() - began < 120


@pytest.mark.parametrize(
    ("failing", "place"), [("1", None), ("1", "loading"), ("0", "probing"), ("1", "sharing"), ("0", "sharing")]
)
def test_one_process_that_fails_or_dies_stops_all(failing: str, place: str | None, tmp_path: Path) -> None:
    program = [sys.executable, str(HERE / "failing_process.py"), *SMALL, "--limit", "13", "--devices", "2"]
    where = {} if place is None else {"DYING_AT": place}
    began = time.monotonic()
    # Only a group of fine-tunings is shared, such as those of controls.
    grouped = ["--controls", "labels-random,labels-flipped"] if place == "sharing" else []
    done = start(program, *grouped, "--out", str(tmp_path), FAILING_RANK=failing, **where)
    if failing == "1":  # else the one that dies is the one that was started
        assert_ended_together(done, tmp_path, began)
    if place is None:
        assert "NaN in query 7, on purpose." in done.stderr
    else:
        assert f"process {failing} of 2" in done.stderr
        assert ("SIGKILL" if failing == "1" else "has died") in done.stderr


def test_devices_that_contradict_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}.items():
        monkeypatch.setenv(name, value)
    assert launched(CompareSettings()) == (2, 3)
    with pytest.raises(UserError, match="torchrun started 2 processes"):
        launched(CompareSettings(devices=4))


@pytest.mark.parametrize(
    ("command", "advice"),
    [("sweep", "--part I/N"), ("dual-form", "by itself"), ("weight-update", "by itself")],
)
def test_what_runs_as_one_process_refuses_torchruns_several(
    command: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        main([command, "--task", "tiny-sst2", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().err
    assert f"torchrun started 2 processes, but `{command}` runs as one" in printed
    assert advice in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", [front.sweep, front.dual_form, front.weight_update])
def test_calls_that_run_as_one_process_refuse_torchruns_several(
    call: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="torchrun started 2 processes"):
        call("builtin", "tiny-sst2")
