"""Outputs appear whole or not at all, and nothing that this program did not write is replaced or removed."""

import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightning_icl.errors import InUseError, OutputError
from lightning_icl.saving import _exchange as exchange
from lightning_icl.saving.record import RECORD, strangers
from lightning_icl.saving.workspace import Workspace, held, write_text


def save(space: Workspace, text: str, name: str = "task") -> None:
    with space.replacing(space.folder / name) as part:
        (part / "results.json").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_only_when_it_is_finished_and_nothing_hidden_stays(tmp_path: Path) -> None:
    with held(tmp_path) as space:
        with space.replacing(tmp_path / "task") as part:
            (part / "results.json").write_text("{}")
            assert not (tmp_path / "task").exists()
        assert names(tmp_path / "task") == [RECORD, "results.json"]
    assert names(tmp_path) == ["task"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_what_was_there_and_nothing_else(tmp_path: Path, stop: type[BaseException]) -> None:
    with held(tmp_path) as space:
        save(space, "old")
    with pytest.raises(stop), held(tmp_path) as space, space.replacing(tmp_path / "task") as part:  # noqa: PT012
        (part / "results.json").write_text("half")
        raise stop
    assert names(tmp_path) == ["task"]
    assert (tmp_path / "task" / "results.json").read_text() == "old"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), held(tmp_path) as space, space.replacing(tmp_path / "task"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_folder_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_one_step: bool) -> None:
    if not in_one_step:
        monkeypatch.setattr(exchange, "_exchange", lambda *_: False)
    with held(tmp_path) as space:
        save(space, "old")
        save(space, "new")
    assert (tmp_path / "task" / "results.json").read_text() == "new"
    assert names(tmp_path) == ["task"]


def test_what_a_killed_process_had_moved_is_put_back_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path) as space:
        save(space, "old", "models/task")
    before, rename = tmp_path / "copy", os.rename
    monkeypatch.setattr(exchange, "_exchange", lambda *_: False)

    def killed(source: Path, target: Path) -> None:
        rename(source, target)
        shutil.copytree(tmp_path / "models", before / "models")  # as the disk is after the first of two renames
        shutil.copytree(next(tmp_path.glob(".lightning-icl-*")), before / ".lightning-icl-run.part")
        monkeypatch.undo()

    monkeypatch.setattr(os, "rename", killed)
    with held(tmp_path) as space:
        save(space, "new", "models/task")
    assert not (before / "models" / "task").exists()
    with held(before, "another use"):
        pass
    assert (before / "models" / "task" / "results.json").read_text() == "old"
    assert names(before) == ["models"]


def test_one_process_uses_a_folder_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path / "out"), pytest.raises(OutputError, match=r"'.*out' is in use by another lightning-icl"):  # noqa: SIM117
        with held(tmp_path / "out"):
            pytest.fail("two have it")
    assert names(tmp_path) == []


def test_the_hidden_place_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    with held(tmp_path, "part-0-of-2") as space, space.replacing(tmp_path / "task") as part:
        (part / "results.json").write_text("{}")
        with held(tmp_path, "part-1-of-2"):
            assert (part / "results.json").exists()
    assert names(tmp_path) == ["task"]


@pytest.mark.parametrize(
    "change",
    [
        lambda task: (task / "thesis.tex").write_text("years of work"),
        lambda task: (task / "results.json").write_text("edited"),
        lambda task: (task / "drafts").mkdir(),
        lambda task: (task / "link").symlink_to(task.parent),
        lambda task: (task / RECORD).write_text("damaged"),
        lambda task: (task / RECORD).unlink(),
    ],
)
def test_what_somebody_else_wrote_or_changed_is_never_replaced(tmp_path: Path, change: object) -> None:
    with held(tmp_path) as space:
        save(space, "old")
        change(tmp_path / "task")  # type: ignore[operator]
        before = {path: path.read_bytes() for path in (tmp_path / "task").iterdir() if path.is_file()}
        with pytest.raises(OutputError, match="left alone"):
            save(space, "new")
    assert {path: path.read_bytes() for path in before} == before
    assert strangers(tmp_path / "task")


def add(space: Workspace, **texts: str) -> None:
    with space.adding() as part:
        for name, text in texts.items():
            (part / f"{name}.md").write_text(text)


def test_files_are_added_together_or_none(tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("mine")
    with held(tmp_path) as space:
        with pytest.raises(OutputError, match=r"summary\.md' was not written by lightning-icl"):
            add(space, controls="a", summary="ours")
        assert not (tmp_path / "controls.md").exists()
        add(space, controls="a")
        add(space, controls="b")
        (tmp_path / "controls.md").write_text("b, and my remarks")
        with pytest.raises(OutputError, match="left alone"):
            add(space, controls="c")
        (tmp_path / "controls.md").write_text("c")  # what would be written stands there already
        add(space, controls="c")
    assert (tmp_path / "summary.md").read_text() == "mine"
    assert set(json.loads((tmp_path / RECORD).read_text())["files"]) == {"controls.md"}


def test_a_file_stays_known_however_often_its_replacement_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def cut(source: Path, target: Path) -> None:
        if Path(target).name == "controls.md":
            raise KeyboardInterrupt
        replace(source, target)

    with held(tmp_path) as space:
        add(space, controls="0")
        for text in "123":
            monkeypatch.setattr(os, "replace", cut)
            with pytest.raises(KeyboardInterrupt):
                add(space, controls=text)
            monkeypatch.undo()
        add(space, controls="4")
    assert (tmp_path / "controls.md").read_text() == "4"
    assert len(json.loads((tmp_path / RECORD).read_text())["files"]["controls.md"]) == 2


def test_only_own_files_are_removed(tmp_path: Path) -> None:
    with held(tmp_path) as space:
        with space.adding() as part:
            (part / "config.yaml").write_text("a: 1")
        (tmp_path / "mine.yaml").write_text("a: 1")
        space.remove(tmp_path / "config.yaml")
        space.remove(tmp_path / "mine.yaml")
        space.remove(tmp_path / "none.yaml")
    assert names(tmp_path) == [RECORD, "mine.yaml"]


def test_a_folder_that_cannot_be_written_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, words in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "cannot be written"),
        (Path("/proc/lightning-icl"), "cannot be written"),
    ):
        with pytest.raises(OutputError, match=words), held(folder):
            pytest.fail("held")


def test_a_failed_write_keeps_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.md"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match="No space left"):
            write_text(path, "new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["summary.md"]
    write_text(path, "new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["summary.md"]


def test_uses_of_a_folder_that_come_and_go_never_take_each_other_for_a_fault(tmp_path: Path) -> None:
    def come_and_go(name: int) -> int:
        refused = 0
        for _ in range(150):
            try:
                # Two of each name, so that both the folder and a hidden place in it vanish under somebody.
                with held(tmp_path / "a" / "b", str(name // 2)):
                    pass
            except InUseError:
                refused += 1
        return refused

    with ThreadPoolExecutor(8) as several:
        assert all(refused < 150 for refused in several.map(come_and_go, range(8)))
    assert {*tmp_path.rglob("*")} <= {tmp_path / "a", tmp_path / "a" / "b"}
