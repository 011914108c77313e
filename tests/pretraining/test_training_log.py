"""The log and the checkpoints of a training that is interrupted anywhere."""

import errno
import os
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from lightning_icl.errors import OutputError, UserError
from lightning_icl.pretraining._whole import LAST, PREVIOUS, newest_whole
from lightning_icl.pretraining.checkpoint import LastCheckpoint, WholeCheckpointIO
from lightning_icl.pretraining.run import pretrain
from lightning_icl.pretraining.settings import PretrainSettings

OUTPUTS = ("training_log.csv", "model.safetensors", "training.json")


class PowerCut(BaseException):
    """What no code catches."""


def settings(folder: Path, out: str, **changes: object) -> PretrainSettings:
    text = folder / "text.txt"
    if not text.exists():
        text.write_text(" ".join(f"the number {n} follows {n - 1}." for n in range(400)), encoding="utf-8")
    chosen: dict = {
        "text": str(text), "validation_text": str(text), "text_share": 0.5, "vocabulary": 300, "layers": 1, "width": 8,
        "heads": 2, "context": 32, "block": 32, "short_block": 32, "batch": 2, "steps": 12, "warmup": 3,
        "checkpoint_every": 2, "validate_every": 4, "accelerator": "cpu",
    }  # fmt: skip
    return PretrainSettings(out=str(folder / out), **{**chosen, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    pretrain(settings(folder, "whole"))
    return folder


def cut(hook: str, times: int, patch: pytest.MonkeyPatch) -> None:
    """Let the power fail right after a hook has run for so many times."""
    owner, name = (WholeCheckpointIO, "save_checkpoint") if hook == "save" else (LastCheckpoint, hook)
    original, left = getattr(owner, name), [times]

    def counted(*given: object, **named: object) -> None:
        original(*given, **named)
        left[0] -= 1
        if not left[0]:
            raise PowerCut

    patch.setattr(owner, name, counted)


@pytest.mark.parametrize(
    "cuts",
    [
        [("on_validation_end", 2)],
        [("save", 3)],
        [("on_train_batch_end", 8)],  # a step with checkpoint and validation, between the two
        [("on_train_batch_end", 10), ("on_train_batch_start", 1), ("save", 1)],
    ],
    ids=str,
)
def test_a_training_cut_anywhere_has_the_log_and_weights_of_one_that_was_not(
    whole: Path, cuts: list[tuple[str, int]]
) -> None:
    out = "cut-" + "-".join(f"{hook}{times}" for hook, times in cuts)
    for hook, times in cuts:
        with pytest.MonkeyPatch.context() as patch:
            cut(hook, times, patch)
            with pytest.raises(PowerCut):
                pretrain(settings(whole, out))
    pretrain(settings(whole, out))
    for name in OUTPUTS:
        assert (whole / out / name).read_bytes() == (whole / "whole" / name).read_bytes(), name
    assert not (whole / f"{out}.training").exists()


def test_a_torn_checkpoint_gives_way_to_the_whole_one_before(tmp_path: Path) -> None:
    save = WholeCheckpointIO().save_checkpoint
    assert newest_whole(tmp_path) is None
    save({"step": 1}, tmp_path / LAST)
    save({"step": 2}, tmp_path / LAST)
    assert newest_whole(tmp_path) == tmp_path / LAST
    assert torch.load(tmp_path / LAST) == {"step": 2}
    content = (tmp_path / LAST).read_bytes()
    middle = len(content) // 2
    for torn in (content[:middle], b"", content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]):
        (tmp_path / LAST).write_bytes(torn)
        assert newest_whole(tmp_path) == tmp_path / PREVIOUS
    assert torch.load(tmp_path / PREVIOUS) == {"step": 1}
    (tmp_path / PREVIOUS).write_bytes(b"torn")
    with pytest.raises(OutputError, match=r"No checkpoint in .* is whole"):
        newest_whole(tmp_path)


@pytest.mark.parametrize("failing", ["write", "sync", "rename"])
def test_a_disk_that_fills_while_saving_keeps_the_checkpoint_before(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = WholeCheckpointIO().save_checkpoint
    save({"step": 1}, tmp_path / LAST)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    owner, name = {"write": (torch, "save"), "sync": (os, "fsync"), "rename": (os, "replace")}[failing]
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OutputError, match=r"No space left on device.*same command"):
        save({"step": 2}, tmp_path / LAST)
    assert [path.name for path in tmp_path.iterdir()] == [LAST]
    assert torch.load(tmp_path / LAST) == {"step": 1}


def test_a_training_that_met_a_full_disk_goes_on_from_what_it_had(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_icl.pretraining import checkpoint

    saved, plain = [], torch.save

    def filling(content: object, file: object) -> None:
        saved.append(content)
        if len(saved) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(content, file)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", filling)
        with pytest.raises(OutputError, match="No space left"):
            pretrain(settings(whole, "full"))
    (whole / "full.training" / LAST).write_bytes(b"torn by something else")
    pretrain(settings(whole, "full"))
    assert (whole / "full" / "training_log.csv").read_bytes() == (whole / "whole" / "training_log.csv").read_bytes()


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Trainer.fit

    def spoil(trainer: Trainer, module: torch.nn.Module, **named: object) -> None:
        fit(trainer, module, **named)  # type: ignore[arg-type]
        with torch.no_grad():
            next(module.parameters()).view(-1)[3] = float("nan")

    monkeypatch.setattr(Trainer, "fit", spoil)
    with pytest.raises(UserError, match="is NaN or infinite after training"):
        pretrain(settings(tmp_path, "model", steps=2))
    assert not (tmp_path / "model").exists()
    with pytest.raises(UserError, match="16-true"):
        settings(tmp_path, "model", precision="16-true")
