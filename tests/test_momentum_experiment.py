"""The momentum experiment: its settings, its statistics, its perplexities, and the paper's configuration."""

import csv
import doctest
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats
from tiny_models import tiny_model
from tiny_task import word_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from experiments.momentum.measure import token_losses
from experiments.momentum.settings import SIZES, ExperimentSettings, read_settings
from experiments.momentum.summary import mean_and_error, paired_difference, published
from lightning_icl.errors import UserError
from lightning_icl.models.finding import find_model
from lightning_icl.models.loading import load_model
from lightning_icl.models.momentum.conversion import to_momentum
from lightning_icl.pretraining.packing import PackedText, encode_text
from lightning_icl.pretraining.run import pretrain
from lightning_icl.pretraining.text import find_text

FOLDER = Path(__file__).parents[1] / "experiments" / "momentum"


@pytest.mark.parametrize("size", SIZES)
def test_every_size_makes_valid_trainings_that_differ_in_momentum_alone(size: str, tmp_path: Path) -> None:
    settings = read_settings(FOLDER / f"{size}.yaml", {"text": "a", "validation_text": "b", "search_text": "c"})
    plain, momentum = (settings.training(variant, 1, tmp_path) for variant in settings.variants[:2])
    changed = {name for name in vars(plain) if getattr(plain, name) != getattr(momentum, name)}
    # What is trained further has its kind of attention from the model that it begins with.
    assert changed == {"init" if settings.start else "momentum", "out"}
    assert [variant.name for variant in settings.variants][:2] == ["vanilla", f"eta-{settings.eta:g}"]


@pytest.mark.parametrize("size", ["smoke", "day", "long"])
def test_arms_change_momentum_alone(size: str, tmp_path: Path) -> None:
    settings = read_settings(FOLDER / f"{size}.yaml", {"text": "a", "validation_text": "b", "search_text": "c"})
    plain, *others = (settings.training(variant, 1, tmp_path) for variant in settings.variants)
    assert len({training.out for training in others}) == len(others)
    for training in others:
        changed = {name for name in vars(plain) if getattr(plain, name) != getattr(training, name)}
        assert changed <= {"momentum", "learn_momentum", "momentum_form", "gate_init", "out"}
        assert training.has_momentum
    assert {"previous", "gate-learnt"} <= {variant.name for variant in settings.variants}


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_papers_model_has_350m_parameters_and_runs_with_momentum() -> None:
    config = AutoConfig.from_pretrained(FOLDER / "gpt-350m")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    width, layers = 1024, 24
    embeddings, block = (50257 + 1024) * width, 12 * width**2 + 13 * width
    expected = embeddings + layers * block + 2 * width
    assert 345e6 < expected < 360e6
    assert parameters(model) == expected
    assert parameters(to_momentum(model, eta=0.9)) == expected
    assert parameters(to_momentum(model, eta=0.9, learn=True)) == expected + layers * 16
    ids = torch.zeros(2, 1024, dtype=torch.long, device="meta")
    causal = torch.ones(2, 1, 1024, 1024, dtype=torch.bool, device="meta").tril()
    logits = model(input_ids=ids, attention_mask=causal, use_cache=False).logits
    assert logits.shape == (2, 1024, 50257)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_papers_settings_take_a_step_in_a_small_shape(tmp_path: Path) -> None:
    paper = yaml.safe_load((FOLDER / "paper.yaml").read_text())["pretrain"]
    for name, first in (("train", 0), ("held", 7)):
        text = " ".join(f"w{5 + (first + number * 7) % 80}" for number in range(1500))
        (tmp_path / f"{name}.txt").write_text(text)
    word_tokenizer().save_pretrained(tmp_path / "tokenizer")
    shape = AutoConfig.from_pretrained(FOLDER / "gpt-350m")
    shape.n_layer, shape.n_embd, shape.n_head = 2, 32, 2
    shape.save_pretrained(tmp_path / "shape")
    small = {"model": f"random:{tmp_path / 'shape'}", "tokenizer": str(tmp_path / "tokenizer"), "accelerator": "cpu",
             "devices": 1, "strategy": "auto", "batch": 8, "steps": 1}  # fmt: skip
    texts = {"text": str(tmp_path / "train.txt"), "validation_text": str(tmp_path / "held.txt")}
    settings = read_settings(FOLDER / "paper.yaml", {**texts, "pretrain": {**paper, **small}})
    variant = settings.variants[-1]
    assert variant.learnt
    out = pretrain(settings.training(variant, 1, tmp_path / "out"))
    (log,) = csv.DictReader((out / "training_log.csv").read_text().splitlines())
    untrained = math.log(len(word_tokenizer()))
    assert float(log["loss"]) == pytest.approx(untrained, abs=0.5)
    assert float(log["validation_loss"]) == pytest.approx(untrained, abs=0.5)
    assert load_model(find_model(str(out))).config.momentum_attention["learn"]


def test_errors_are_those_of_scipy_and_differences_are_paired() -> None:
    one, other = {1: 3.0, 2: 5.0, 3: 4.5}, {1: 2.5, 2: 4.9, 3: 4.1}
    assert mean_and_error(list(one.values())) == pytest.approx((np.mean([*one.values()]), stats.sem([*one.values()])))
    gaps = [other[seed] - one[seed] for seed in one]
    assert paired_difference(one, other) == pytest.approx((np.mean(gaps), stats.sem(gaps)))
    assert math.isnan(mean_and_error([1.0])[1])


def test_losses_of_tokens_equal_a_plain_loop(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" ".join(f"w{5 + number * 7 % 80}" for number in range(70)))
    encode_text(find_text(str(tmp_path / "a.txt"), "text"), word_tokenizer(), tmp_path / "tokens")
    text, model = PackedText(tmp_path / "tokens", 2, 32, "text"), tiny_model("llama")
    found = token_losses(model, text, length=16, longest=32, tokens=1000)
    rows = []
    for start in range(0, 64, 16):
        ids = torch.tensor(text.tokens[start : start + 16].astype("int64"))
        with torch.no_grad():
            logs = model(ids[None]).logits[0].double().log_softmax(-1)
        rows.append([-float(logs[place, ids[place + 1]]) for place in range(15)])
    np.testing.assert_allclose(found, rows, atol=1e-5)


def test_published_figures_stand_in_their_rows() -> None:
    assert published("1024", "momentum") == 15.02
    assert published("train 1024", "vanilla") == 17.61
    assert published("imdb", "momentum") == 70.3
    assert published("mean", "momentum") == 54.7


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a number"):
        ExperimentSettings(pretrain={}, text="a", validation_text="b", sweep=(1.5,))
    with pytest.raises(UserError, match="Did you mean 'momentum_form'"):
        ExperimentSettings(pretrain={}, text="a", validation_text="b", arms={"b": {"momentum_frm": "mean"}})
    with pytest.raises(UserError, match="Give --text"):
        read_settings(FOLDER / "cpu.yaml", {})
    (tmp_path / "own.yaml").write_text("texts: a\n")
    with pytest.raises(UserError, match="Did you mean 'text'"):
        read_settings(tmp_path / "own.yaml", {})


@pytest.mark.parametrize("name", ["search", "differences", "summary", "texts", "training_curves"])
def test_examples_in_docstrings_are_true(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"experiments.momentum.{name}"))
    assert outcome.attempted
    assert not outcome.failed
