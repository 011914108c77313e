"""The momentum experiment: its settings, its statistics, its perplexities, and the paper's configuration."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_models import tiny_model
from tiny_task import word_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from experiments.momentum.measure import position_losses
from experiments.momentum.settings import SIZES, ExperimentSettings, read_settings
from experiments.momentum.summary import mean_and_error, paired_difference, published
from lightning_icl.errors import UserError
from lightning_icl.pretraining.packing import PackedText, encode_text
from lightning_icl.pretraining.text import find_text

FOLDER = Path(__file__).parents[1] / "experiments" / "momentum"


@pytest.mark.parametrize("size", SIZES)
def test_every_size_makes_valid_trainings_that_differ_in_momentum_alone(size: str, tmp_path: Path) -> None:
    settings = read_settings(FOLDER / f"{size}.yaml", {"text": "a", "validation_text": "b"})
    plain, momentum = (settings.training(variant, 1, tmp_path) for variant in settings.variants[:2])
    changed = {name for name in vars(plain) if getattr(plain, name) != getattr(momentum, name)}
    assert changed == {"momentum", "out"}
    assert [variant.name for variant in settings.variants][:2] == ["vanilla", f"eta-{settings.eta:g}"]


def test_the_papers_model_has_350m_parameters() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(FOLDER / "gpt-350m"))
    assert 345e6 < sum(parameter.numel() for parameter in model.parameters()) < 360e6


def test_errors_are_those_of_scipy_and_differences_are_paired() -> None:
    one, other = {1: 3.0, 2: 5.0, 3: 4.5}, {1: 2.5, 2: 4.9, 3: 4.1}
    assert mean_and_error(list(one.values())) == pytest.approx((np.mean([*one.values()]), stats.sem([*one.values()])))
    gaps = [other[seed] - one[seed] for seed in one]
    assert paired_difference(one, other) == pytest.approx((np.mean(gaps), stats.sem(gaps)))
    assert math.isnan(mean_and_error([1.0])[1])


def test_losses_by_position_equal_a_plain_loop(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" ".join(f"w{5 + number * 7 % 80}" for number in range(70)))
    encode_text(find_text(str(tmp_path / "a.txt"), "text"), word_tokenizer(), tmp_path / "tokens")
    text, model = PackedText(tmp_path / "tokens", 2, 32, "text"), tiny_model("llama")
    found = position_losses(model, text, length=16, longest=32, tokens=1000)
    rows = []
    for start in range(0, 64, 16):
        ids = torch.tensor(text.tokens[start : start + 16].astype("int64"))
        with torch.no_grad():
            logs = model(ids[None]).logits[0].double().log_softmax(-1)
        rows.append([-float(logs[place, ids[place + 1]]) for place in range(15)])
    assert found.tolist() == pytest.approx(np.mean(rows, 0).tolist(), abs=1e-5)


def test_published_figures_stand_in_their_rows() -> None:
    assert published("1024", "momentum") == 15.02
    assert published("train 1024", "vanilla") == 17.61
    assert published("imdb", "momentum") == 70.3
    assert published("mean", "momentum") == 54.7


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a number"):
        ExperimentSettings(pretrain={}, text="a", validation_text="b", sweep=(1.5,))
    with pytest.raises(UserError, match="Give --text"):
        read_settings(FOLDER / "cpu.yaml", {})
    (tmp_path / "own.yaml").write_text("texts: a\n")
    with pytest.raises(UserError, match="Did you mean 'text'"):
        read_settings(tmp_path / "own.yaml", {})
