"""A situation from outside: what a user gives and what must come of it. Each case in `tests/outside` runs for real."""

import contextlib
import hashlib
import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lightning_icl.cli import main

LINES, COLUMNS = 25, 100


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table."""

    situation: str
    """What the user did, in a few words: the test's name."""
    arguments: str
    """The command line without the program's name; `{here}` is the case's own folder, which is also the current one."""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    """What lies in the folder, by path."""
    prepare: Callable[[Path], None] | None = None
    """What else is to be made there first."""
    says: Sequence[str] = ()
    """Parts of the message, such as the file, the row, the flag, and what is allowed."""
    status: int = 2
    """Exit status; 2 is a user's mistake, 0 success."""
    loads_weights: bool = False
    """Whether the outcome is allowed to need the model's weights."""
    makes: Sequence[str] = ()
    """Files that must be there afterwards."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it."""

    status: int
    out: str
    err: str


def run_command(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Outcome:
    """The command line in this process."""
    capsys.readouterr()
    status = 0
    try:
        main(list(words))
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    captured = capsys.readouterr()
    return Outcome(status=status, out=captured.out, err=captured.err)


def check_case(case: Case, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Outcome:
    """Run one case: status and words as stated, files of the user untouched, nothing hidden left, no weights read."""
    for name, content in case.files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if case.prepare is not None:
        case.prepare(here)
    monkeypatch.chdir(here)
    if not case.loads_weights:
        forbid_weights(monkeypatch)
    before = hashes(here)
    outcome = run_command(shlex.split(case.arguments.replace("{here}", str(here))), capsys)
    assert outcome.status == case.status, outcome.out + outcome.err
    assert "Traceback" not in outcome.err
    if case.status:
        assert rows_on_screen(outcome.err) <= LINES, outcome.err
    for words in case.says:
        assert words in outcome.err + outcome.out, outcome.err + outcome.out
    after = hashes(here)
    assert {name: after.get(name) for name in before} == before, "a file of the user changed"
    assert not set(hidden(after)) - set(before), "something unfinished was left"
    for name in case.makes:
        assert (here / name).exists(), name
    if case.status:
        assert not any(name.endswith("results.json") for name in set(after) - set(before)), "a failure left results"
    return outcome


def forbid_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any reading of weights fail the test: mistakes are found before. Rehearsals without content are none."""
    from transformers import PreTrainedModel

    load = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def rehearse(kind: type, name: object, *rest: object, **settings: object) -> object:
        assert name is None, "weights were read before the mistake was found"
        return load(kind, None, *rest, **settings)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(rehearse))


def rows_on_screen(text: str) -> int:
    """Lines that a terminal of 100 columns shows it on."""
    return sum(max(1, math.ceil(len(line) / COLUMNS)) for line in text.strip().splitlines())


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by path; folders, links and pipes by their kind."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(parent) / name
            kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "" if path.is_file() else "special"
            with contextlib.suppress(OSError):
                found[str(path.relative_to(folder))] = kind or hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def hidden(paths: Mapping[str, str]) -> list[str]:
    """Unfinished outputs by their names."""
    return [name for name in paths if Path(name).name.startswith(".") and ".part" in Path(name).name]
