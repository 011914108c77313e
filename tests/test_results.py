"""The files of a run as text, and reading them back."""

import json
import math
from pathlib import Path

import pytest

from lightning_icl.errors import OutputError
from lightning_icl.results import RESULTS, read_run, to_json, to_json_lines


def finish(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text(text)


def test_nan_and_infinity_become_null() -> None:
    assert json.loads(to_json({"a": math.nan, "b": [1.0, math.inf], "c": {"d": (2,)}})) == {
        "a": None, "b": [1.0, None], "c": {"d": [2]},
    }  # fmt: skip
    assert to_json_lines([{"a": 1}, {"a": math.nan}]) == '{"a": 1}\n{"a": null}\n'


def test_runs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no finished run"):
        read_run(tmp_path)
    finish(tmp_path / "a", '{"schema": 99}')
    with pytest.raises(OutputError, match="schema 99"):
        read_run(tmp_path)
    finish(tmp_path / "a", "{")
    with pytest.raises(OutputError, match="cannot be read"):
        read_run(tmp_path)


def test_what_is_hidden_is_no_result(tmp_path: Path) -> None:
    finish(tmp_path / ".a.x7.part", '{"schema": 1}')
    with pytest.raises(OutputError, match="holds no finished run"):
        read_run(tmp_path)
