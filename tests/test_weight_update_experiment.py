"""The weight-update experiment runs as its README says, and goes on where it stopped."""

import csv
from pathlib import Path

import pytest

from experiments.weight_update.run import main


def test_it_makes_one_row_for_each_condition_and_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--tasks", "tiny-cb", "--scopes", "probe", "--shots", "2", "--seeds", "3", "--limit", "4"]
    words += ["--held-out", "3", "--out", str(tmp_path / "out")]
    main(words)
    first = (tmp_path / "out" / "summary.csv").read_text()
    rows = list(csv.DictReader(first.splitlines()))
    assert len(rows) == 10
    assert {(row["task"], row["shots"], row["seed"], row["scope"]) for row in rows} == {("tiny-cb", "2", "3", "probe")}
    assert next(row for row in rows if row["condition"] == "icl")["kl"] == "0.0"
    monkeypatch.setattr("experiments.weight_update.run.weight_update", None)
    main(words)
    assert (tmp_path / "out" / "summary.csv").read_text() == first
