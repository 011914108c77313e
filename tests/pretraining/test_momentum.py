"""Pre-training with momentum: the same model but for its attention, and the log of what it learns."""

import csv
from pathlib import Path

import pytest
import torch
from tiny_task import word_tokenizer

from lightning_icl.errors import UserError
from lightning_icl.models.finding import find_model
from lightning_icl.models.loading import load_model
from lightning_icl.models.momentum.conversion import from_momentum
from lightning_icl.models.momentum.settings import has_momentum, learnt_momentum
from lightning_icl.pretraining.models import new_model
from lightning_icl.pretraining.run import pretrain
from lightning_icl.pretraining.settings import PretrainSettings


@pytest.mark.parametrize("learn", [False, True])
def test_the_same_seed_gives_the_same_weights_with_and_without_momentum(learn: bool) -> None:
    models = []
    for settings in ({}, {"momentum": 0.7, "learn_momentum": learn}):
        torch.manual_seed(0)
        models.append(
            new_model(PretrainSettings(out="unused", layers=2, width=32, heads=2, **settings), word_tokenizer())
        )
    plain, momentum = models
    assert not has_momentum(plain)
    assert has_momentum(momentum)
    asked = {"eta": 0.7, "learn": learn, "form": "sum", "gate_init": None, "base": "sdpa"}
    assert momentum.config.momentum_attention == asked
    learnt = {name: value for name, value in momentum.named_parameters() if name.endswith("momentum_logit")}
    assert len(learnt) == (2 if learn else 0)
    for value in learnt.values():
        torch.testing.assert_close(value.sigmoid(), torch.full((2,), 0.7))
    weights = dict(from_momentum(momentum).named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in plain.named_parameters())
    assert weights.keys() == dict(plain.named_parameters()).keys()


def test_forms_and_gates_reach_the_model_and_nothing_else_is_trained_where_asked() -> None:
    settings = PretrainSettings(
        out="unused", layers=2, width=32, heads=2, momentum_form="previous", gate_init=0.0, only_momentum=True
    )
    model = new_model(settings, word_tokenizer())
    assert model.config.momentum_attention["form"] == "previous"
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert len(trained) == 2
    assert all(name.endswith("momentum_gate") and torch.equal(value, torch.zeros(2)) for name, value in trained.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.9, "momentum_form": "previous"}, "has no eta"),
        ({"momentum_form": "mean"}, "need momentum"),
        ({"gate_init": 0.0}, "need momentum"),
        ({"momentum": 0.9, "gate_init": float("inf")}, "finite"),
        ({"momentum": 0.9, "only_momentum": True}, "nothing to train"),
    ],
)
def test_settings_of_forms_that_cannot_be_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PretrainSettings(out="unused", **settings)


def test_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(UserError, match=r"momentum = 1\.0: it must lie strictly between 0 and 1"):
        PretrainSettings(out="unused", momentum=1.0)
    with pytest.raises(UserError, match="learn_momentum needs a first value"):
        PretrainSettings(out="unused", learn_momentum=True)


def test_the_log_holds_what_a_step_began_with_of_every_learnt_number(tmp_path: Path) -> None:
    word_tokenizer().save_pretrained(tmp_path / "tokenizer")
    logged, shared = {}, {
        "layers": 2, "width": 16, "heads": 2, "context": 32, "block": 32, "short_block": 32, "batch": 1, "warmup": 9,
        "momentum": 0.7, "learn_momentum": True, "momentum_form": "mean", "gate_init": 0.25, "learning_rate": 0.5,
        "accelerator": "cpu", "tokenizer": str(tmp_path / "tokenizer"),
    }  # fmt: skip
    for steps in (1, 2):
        out = pretrain(PretrainSettings(out=str(tmp_path / f"{steps}"), steps=steps, **shared))
        (row,) = csv.DictReader((out / "training_log.csv").read_text().splitlines())
        logged[steps] = {name: float(value) for name, value in row.items() if name.startswith(("eta", "gate"))}
    first = {name: 0.7 if name.startswith("eta") else 0.25 for name in logged[1]}
    assert len(first) == 6
    assert logged[1] == pytest.approx(first)
    # Both trainings warm up alike, so the second begins its last step as the first has ended.
    for name, layers in learnt_momentum(load_model(find_model(str(tmp_path / "1")))).items():
        heads = torch.cat(layers)
        for figure, value in (("least", heads.min()), ("mean", heads.mean()), ("most", heads.max())):
            assert logged[2][f"{name}_{figure}"] == pytest.approx(float(value), abs=1e-6)
        assert logged[2][f"{name}_most"] != pytest.approx(first[f"{name}_most"], abs=1e-3)
