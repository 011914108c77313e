"""Two processes give the same numbers as one: the same fine-tuning to the bit, and no query lost or counted twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# 13 queries: not divisible by two.
SMALL = ["--task", "tiny-sst2,tiny-cb", "--shots", "4", "--limit", "13", "--batch-tokens", "80", "--accelerator", "cpu"]


def run(folder: Path, *flags: str) -> Path:
    command = [sys.executable, "-m", "lightning_icl.cli", "compare", *SMALL, "--out", str(folder), *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_two_processes_equal_one(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two", "--devices", "2")
    for task in ("tiny-sst2", "tiny-cb"):
        first, second = (json.loads((out / task / "results.json").read_text()) for out in (one, two))
        assert second["finetune"]["overlay_hash"] == first["finetune"]["overlay_hash"]
        assert second["queries"]["count"] == first["queries"]["count"] == 13
        for level, key in (("accuracy", "icl"), ("sim_aou", "value"), ("sim_am", "value"), ("kendall", "value")):
            assert second[level][key] == pytest.approx(first[level][key], abs=1e-6)
        assert second["rec2ftp"] == first["rec2ftp"]
        for name in ("accuracy.icl", "rec2ftp.agreement", "sim_aou.value", "sim_am.difference", "kendall.value"):
            assert second["intervals"][name] == pytest.approx(first["intervals"][name], abs=1e-6)
        rows = [(out / task / "predictions.jsonl").read_text().splitlines() for out in (one, two)]
        indices = [[json.loads(line)["index"] for line in lines] for lines in rows]
        assert indices[0] == indices[1] == sorted(set(indices[0]))
