"""Mistakes in flags."""

from pathlib import Path

import pytest
from outside_case import Case, check_case

CASES = [
    Case(situation="a misspelt flag", arguments="compare --shot 3", says=["Did you mean '--shots'"]),
    Case(situation="an unknown task", arguments="compare --task sst-2", says=["Did you mean 'sst2'"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.situation)
def test_flags(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)
