"""However a run is ended or its printing fails: what was finished is whole, and the status says how it ended."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from lightning_icl.cli import main

SMALL = ["--task", "tiny-cb,tiny-mr", "--shots", "2", "--limit", "3", "--out", "out"]
TINY = ["pretrain", "--layers", "1", "--width", "16", "--heads", "2", "--vocabulary", "300", "--block", "64",
        "--short-block", "64", "--context", "64", "--batch", "2", "--steps", "3", "--checkpoint-every", "1",
        "--accelerator", "cpu", "--out", "model"]  # fmt: skip
TRAINING, QUERIES = (_TrainingEpochLoop, "advance"), (_EvaluationLoop, "_evaluation_step")
COMMANDS = {
    "compare": (["compare", *SMALL], TRAINING),
    "compare, on queries": (["compare", *SMALL], QUERIES),
    "fit": (["fit", *SMALL], TRAINING),
    "validate": (["validate", *SMALL], QUERIES),
    "dual-form": (["dual-form", *SMALL], TRAINING),
    "weight-update": (["weight-update", *SMALL], QUERIES),
    "sweep": (["sweep", *SMALL, "--seeds", "1", "--lrs", "0.1"], TRAINING),
    "pretrain": (TINY, TRAINING),
}
"""By command: its words, and where inside the Trainer the signal comes."""


def status_of(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def own_messages(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was said of the end; lines of progress are left out."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("lightning-icl:")]


@pytest.fixture
def _signals_as_in_a_fresh_process() -> Iterator[None]:
    # Lightning ignores interrupts once it has had one, and what runs the tests may handle either signal itself.
    before = {sent: signal.getsignal(sent) for sent in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for sent, handler in before.items():
        signal.signal(sent, handler)


@pytest.mark.usefixtures("_signals_as_in_a_fresh_process")
@pytest.mark.parametrize(("sent", "status", "word"), [(signal.SIGTERM, 143, "term"), (signal.SIGINT, 130, "inter")])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_every_command_alike(
    command: str,
    sent: signal.Signals,
    status: int,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, (owner, method) = COMMANDS[command]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(owner, method, lambda *_, **__: os.kill(os.getpid(), sent))
    assert status_of(arguments) == status
    messages = own_messages(capsys)
    assert len(messages) == 1
    assert messages[0].startswith(f"lightning-icl: {word}")
    assert not list(tmp_path.rglob("results.json")) + list(tmp_path.rglob("model"))
    assert not list(tmp_path.rglob(".*"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def full() -> io.TextIOWrapper:
    return open("/dev/full", "w")


def without_reader() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize(
    ("stream", "status", "words"),
    [
        (full, 1, "No space left on device"),
        (without_reader, 1, ""),
        (lambda: None, 1, "it is closed"),
        (lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"), 0, ""),
    ],
    ids=["full", "without a reader", "closed", "ASCII alone"],
)
def test_what_cannot_be_printed_does_not_end_a_run(
    stream: Callable[[], io.TextIOWrapper | None],
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with stream() or contextlib.nullcontext() as opened:
        monkeypatch.setattr(sys, "stdout", opened)
        assert status_of(["compare", *SMALL]) == status
    messages = own_messages(capsys)
    assert len(messages) == (1 if words else 0)
    assert words in "".join(messages)
    assert {path.parent.name for path in Path("out").rglob("results.json")} == {"tiny-cb", "tiny-mr"}


def test_names_are_printed_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", printed)
    out = "[red]Ω[/red] [/nothing]"
    assert status_of(["compare", "--task", "tiny-cb", "--shots", "2", "--limit", "3", "--out", out]) == 0
    printed.seek(0)
    assert r"Results are in [red]\u03a9[/red] [/nothing];" in printed.read()
    assert (Path(out) / "tiny-cb" / "results.json").is_file()
