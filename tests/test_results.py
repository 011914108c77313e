"""A run's files: all or nothing, nothing overwritten, nothing that JSON does not know."""

import errno
import json
import math
from pathlib import Path

import pytest

from lightning_icl.errors import OutputError
from lightning_icl.results import RESULTS, check_output, finished_folder, read_run, to_json, to_json_lines, write_text


def finish(folder: Path, text: str = "{}") -> None:
    with finished_folder(folder) as part:
        (part / RESULTS).write_text(text)


def test_nan_and_infinity_become_null() -> None:
    assert json.loads(to_json({"a": math.nan, "b": [1.0, math.inf], "c": {"d": (2,)}})) == {
        "a": None, "b": [1.0, None], "c": {"d": [2]},
    }  # fmt: skip
    assert to_json_lines([{"a": 1}, {"a": math.nan}]) == '{"a": 1}\n{"a": null}\n'


def test_a_folder_appears_only_when_it_is_finished(tmp_path: Path) -> None:
    with finished_folder(tmp_path / "task") as part:
        (part / RESULTS).write_text("{}")
        assert not (tmp_path / "task").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["task"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_the_old_run_and_nothing_else(tmp_path: Path, stop: type[BaseException]) -> None:
    finish(tmp_path / "task", '{"old": 1}')
    with pytest.raises(stop):  # noqa: PT012, SIM117
        with finished_folder(tmp_path / "task") as part:
            (part / RESULTS).write_text("{")
            raise stop
    assert [path.name for path in tmp_path.iterdir()] == ["task"]
    assert json.loads((tmp_path / "task" / RESULTS).read_text()) == {"old": 1}


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), finished_folder(tmp_path / "task"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_replacing_a_run_needs_overwrite(tmp_path: Path) -> None:
    finish(tmp_path / "sst2")
    with pytest.raises(OutputError, match=r"already holds a run \(sst2\).*--overwrite"):
        check_output(tmp_path, ["mr"], RESULTS, overwrite=False)
    check_output(tmp_path, ["sst2"], RESULTS, overwrite=True)


def test_what_is_no_run_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="left alone"):
        check_output(tmp_path, ["sst2"], RESULTS, overwrite=True)


def test_a_folder_that_cannot_be_written_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_output(tmp_path / "file", [], RESULTS, overwrite=False)
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / "file" / "below", [], RESULTS, overwrite=False)
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(Path("/proc/lightning-icl"), [], RESULTS, overwrite=False)


def test_a_failed_write_keeps_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.md"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left"):
        write_text(path, "new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["summary.md"]


def test_runs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no finished run"):
        read_run(tmp_path)
    finish(tmp_path / "a", '{"schema": 99}')
    with pytest.raises(OutputError, match="schema 99"):
        read_run(tmp_path)
    finish(tmp_path / "a", "{")
    with pytest.raises(OutputError, match="cannot be read"):
        read_run(tmp_path)
