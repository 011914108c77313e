"""A training that was stopped and went on is the same training: losses and weights, bit for bit."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_icl.errors import OutputError
from lightning_icl.pretraining import data
from lightning_icl.pretraining._module import CausalPretraining
from lightning_icl.pretraining.run import pretrain
from lightning_icl.pretraining.settings import PretrainSettings

STEPS, STOP, EVERY = 22, 13, 5


class PowerCut(RuntimeError):
    """What ends the first part."""


def settings(folder: Path, out: str, **changes: object) -> PretrainSettings:
    text = folder / "text.txt"
    if not text.exists():
        text.write_text(" ".join(f"the number {n} follows {n - 1}." for n in range(3000)), encoding="utf-8")
        (folder / "held_out.txt").write_text(" ".join(f"so {n} follows {n - 1}." for n in range(200)), encoding="utf-8")
        config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 1}
        (folder / "config.json").write_text(json.dumps(config))  # GPT-2 has dropout
    chosen: dict = {
        "text": str(text), "validation_text": str(folder / "held_out.txt"), "text_share": 0.7, "vocabulary": 320,
        "model": str(folder), "block": 32, "short_block": 16, "short_steps": 4, "batch": 4, "accumulate": 2,
        "steps": STEPS, "warmup": 3, "checkpoint_every": EVERY, "validate_every": 6, "accelerator": "cpu",
    }  # fmt: skip
    return PretrainSettings(out=str(folder / out), **{**chosen, **changes})


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training fail once, in the middle of a step."""
    plain = CausalPretraining.training_step

    def failing(self: CausalPretraining, batch: tuple, batch_idx: int) -> torch.Tensor:
        if batch_idx == 2 * step + 1:
            raise PowerCut
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(CausalPretraining, "training_step", failing)


def log(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "training_log.csv").read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model trained in two parts, and one trained in one."""
    folder = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(STOP, patch)
        with pytest.raises(PowerCut):
            pretrain(settings(folder, "parts"))
    for change in ({"block": 64}, {"learning_rate": 1e-4}, {"accumulate": 1}):
        with pytest.raises(OutputError, match=rf"unfinished training with {next(iter(change))} = .*; now it is"):
            pretrain(settings(folder, "parts", **change))
    text = folder / "text.txt"
    text.write_text(text.read_text() + " more")
    with pytest.raises(OutputError, match=r"text \(files\)"):
        pretrain(settings(folder, "parts"))
    text.write_text(text.read_text().removesuffix(" more"))
    assert not (folder / "parts").exists()
    pretrain(settings(folder, "parts"))
    pretrain(settings(folder, "whole"))
    return folder


def test_weights_are_the_same_to_the_bit(trained: Path) -> None:
    parts, whole = (load_file(trained / name / "model.safetensors") for name in ("parts", "whole"))
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_the_loss_curve_is_the_same_to_the_bit(trained: Path) -> None:
    assert log(trained / "parts") == log(trained / "whole")
    assert [row["step"] for row in log(trained / "whole") if row["loss"]] == ["9", "19"]
    assert [row["step"] for row in log(trained / "whole") if row["validation_loss"]] == ["5", "11", "17"]


@pytest.mark.skipif(sys.platform != "linux", reason="batches are prepared ahead by forked processes")
def test_batches_prepared_ahead_are_the_same_and_so_is_a_training_that_goes_on_with_them(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_workers", lambda _: 2)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(STOP, patch)
        with pytest.raises(PowerCut):
            pretrain(settings(trained, "ahead"))
    pretrain(settings(trained, "ahead"))
    assert log(trained / "ahead") == log(trained / "whole")
    ahead, whole = (load_file(trained / name / "model.safetensors") for name in ("ahead", "whole"))
    assert all(torch.equal(ahead[name], whole[name]) for name in whole)


def test_nothing_but_the_model_is_left(trained: Path) -> None:
    assert not (trained / "parts.training").exists()
    names = {path.name for path in (trained / "parts").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "training_log.csv"} <= names


def test_a_finished_model_is_not_replaced_unless_asked(trained: Path) -> None:
    before = (trained / "whole" / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match="already holds a model"):
        pretrain(settings(trained, "whole"))
    assert (trained / "whole" / "model.safetensors").read_bytes() == before
    pretrain(settings(trained, "whole", steps=2, overwrite=True))
    assert (trained / "whole" / "model.safetensors").read_bytes() != before


def test_a_checkpoint_of_unknown_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.training").mkdir()
    (tmp_path / "own.training" / "last.ckpt").write_bytes(b"")
    with pytest.raises(OutputError, match="was not made by one"):
        pretrain(settings(tmp_path, "own"))
    (tmp_path / "own.training" / "lightning-icl.json").write_text("{}")
    with pytest.raises(OutputError, match=r"training\.json cannot be read"):
        pretrain(settings(tmp_path, "own"))


def test_a_training_from_existing_weights_goes_on_exactly_and_notices_another_model(trained: Path) -> None:
    initial = trained / "initial"
    shutil.copytree(trained / "whole", initial)
    begun = {"model": None, "init": str(initial), "vocabulary": 3072, "momentum": 0.8, "learn_momentum": True}
    with pytest.MonkeyPatch.context() as patch:
        stop_at(STOP, patch)
        with pytest.raises(PowerCut):
            pretrain(settings(trained, "init-parts", **begun))
    with pytest.raises(OutputError, match=r"unfinished training with init = .*initial'; now it is None"):
        pretrain(settings(trained, "init-parts", momentum=0.8, learn_momentum=True))
    config = initial / "config.json"
    before = config.read_text()
    config.write_text(before.replace('"n_head": 2', '"n_head": 4'))
    with pytest.raises(OutputError, match=r"unfinished training with init \(files\) = .*config\.json"):
        pretrain(settings(trained, "init-parts", **begun))
    config.write_text(before)
    pretrain(settings(trained, "init-parts", **begun))
    pretrain(settings(trained, "init-whole", **begun))
    parts, whole = (load_file(trained / f"init-{name}" / "model.safetensors") for name in ("parts", "whole"))
    assert sum(name.endswith("momentum_logit") for name in whole) == 2
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    assert log(trained / "init-parts") == log(trained / "init-whole")
