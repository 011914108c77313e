"""Gates trained alone: every arm trains numbers of momentum and nothing else, as many as its control or as stated.

What is finished is used again where the very same is asked for, and nowhere else.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from tiny_models import tiny_model
from tiny_task import word_tokenizer

from experiments.momentum import gates
from experiments.momentum.cache import measured_once, train_once
from experiments.momentum.gate_tables import heads, tables
from experiments.momentum.gates import ARMS, run, trainings
from experiments.momentum.measure import learnt
from lightning_icl.errors import OutputError
from lightning_icl.models.momentum.conversion import to_momentum
from lightning_icl.pretraining.models import new_model
from lightning_icl.pretraining.run import pretrain
from lightning_icl.pretraining.settings import PretrainSettings


def arguments_in(folder: Path, **changes: object) -> argparse.Namespace:
    """Arguments for one step on a tiny model and a little text."""
    for name in ("tinyshakespeare/input.txt", "wikitext2/validation.txt", "wikitext2/test.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(" ".join(f"w{5 + number * 7 % 80}" for number in range(200)))
    tiny_model("llama").save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    basic = {
        "init": str(folder / "model"), "data": str(folder), "out": folder / "out", "seeds": [1], "block": 32,
        "batch": 1, "steps": 1, "rate": 0.01, "tokens": 64, "limit": 2, "tasks": "tiny-sst2", "accelerator": "cpu",
    }  # fmt: skip
    return argparse.Namespace(**{**basic, **changes})


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_starts_as_the_plain_model_and_trains_gates_alone(name: str, tmp_path: Path) -> None:
    model = new_model(trainings(arguments_in(tmp_path), 1)[name], word_tokenizer())
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    gates = sum(value.numel() for key, value in trained.items() if key.endswith("momentum_gate"))
    others = sum(value.numel() for value in trained.values()) - gates
    assert (gates, others) == (3 * 4, 3 * 2 if "learnt" in name else 0)
    ids = torch.arange(3, 30)[None]
    plain = tiny_model("llama")
    plain.set_attn_implementation("sdpa")
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=ids).logits, plain(input_ids=ids).logits)


def found(model: torch.nn.Module | None = None, *, mean: float, right: bool = True) -> dict[str, Any]:
    """Figures of two blocks of text and two queries."""
    blocks = [mean + part for part in (-0.1, 0.1)]
    accuracy = {"a": {"zsl": 0.25, "icl": (1 + right) / 2, "icl_right": [True, right]}}
    values = {"eta": None, "gate": None} if model is None else learnt(model)
    return {"perplexity": math.exp(mean), "block_loss": blocks, "accuracy": accuracy, **values}


def test_the_tables_count_what_is_trained_and_show_it_by_layer_and_what_it_changes() -> None:
    model = to_momentum(tiny_model("llama"), eta=0.5, learn=True, gate_init=0.25)
    with torch.no_grad():
        model.get_parameter("model.layers.2.self_attn.momentum_gate")[:2] = torch.tensor([0.0, 1.0])
    arms = {"plain": {1: found(mean=2.0)}, "previous": {1: found(mean=1.9)}, "both": {1: found(model, mean=1.8)}}
    text = tables(arms)
    assert f"| both | 18 | {math.exp(1.8):.3f} | 25.0 | 100.0 |" in text
    assert "| layer | gate: both | η: both |" in text
    assert "| 2 | +0.000 / +0.375 / +1.000 | +0.500 / +0.500 / +0.500 |" in text
    # Every replicate scales both perplexities alike, between that of the easy block alone and the hard one's.
    for reference, mean in (("plain", 2.0), ("previous", 1.9)):
        middle, low, high = (f"{(math.exp(1.8) - math.exp(mean)) * math.exp(part):+.3f}" for part in (0.0, 0.1, -0.1))
        assert f"| both | {reference} | {middle} [{low}, {high}] | +0.000 [+0.000, +0.000] |" in text
    difference = math.exp(1.8) - math.exp(2.0)
    assert (
        f"Perplexity against plain: the interval excludes 0 for previous ({math.exp(1.9) - math.exp(2.0):+.2f}), both ("
        in text
    )
    assert f"both ({difference:+.2f})" in text


def test_several_seeds_are_compared_seed_by_seed() -> None:
    means = {"plain": (2.0, 2.0, 2.0), "previous": (1.7, 1.9, 1.8), "both": (1.6, 1.7, 1.9)}
    text = tables({name: {seed: found(mean=one) for seed, one in enumerate(row)} for name, row in means.items()})
    for reference in ("plain", "previous"):
        gaps = [math.exp(one) - math.exp(other) for one, other in zip(means["both"], means[reference], strict=True)]
        ends = stats.ttest_1samp(gaps, 0.0).confidence_interval(0.95)
        cell = f"{statistics.fmean(gaps):+.3f} [{ends.low:+.3f}, {ends.high:+.3f}]"
        assert f"| both | {reference} | {cell} |" in text
    both = [math.exp(one) for one in means["both"]]
    assert f"| both | 0 | {statistics.fmean(both):.3f} ± {stats.sem(both):.3f} | 25.0 | 100.0 |" in text


def test_heads_of_several_seeds_are_means() -> None:
    by_seed = {1: {"gate": [[0.0, 1.0], [2.0, 3.0]], "eta": None}, 2: {"gate": [[1.0, 1.0], [4.0, 5.0]], "eta": None}}
    assert heads(by_seed, "gate") == [[0.5, 1.0], [3.0, 4.0]]
    assert heads(by_seed, "eta") == []


def test_trainings_of_other_settings_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    arguments = arguments_in(tmp_path)
    assert train_once(trainings(arguments, 1)["previous"])
    assert not train_once(trainings(arguments, 1)["previous"])
    for change in ({"rate": 0.02}, {"steps": 2}):
        with pytest.raises(OutputError, match="Set it back"):
            run(arguments_in(tmp_path, **change))
    tiny_model("llama", seed=5).save_pretrained(tmp_path / "model")
    with pytest.raises(OutputError, match=r"init \(files\)"):
        run(arguments)
    assert not (arguments.out / "plain.json").exists()


def test_an_arm_that_has_hardly_moved_has_the_figures_of_the_plain_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "ARMS", {"previous": ARMS["previous"]})
    arguments = arguments_in(tmp_path, rate=1e-12, init=str(tmp_path / "fresh"))
    # A tokenizer of bytes, which can tell the answers of a built-in task apart.
    small = {"layers": 1, "width": 16, "heads": 2, "vocabulary": 300, "context": 512, "block": 32, "short_block": 32}
    pretrain(PretrainSettings(out=arguments.init, steps=1, batch=1, accelerator="cpu", **small))
    run(arguments)
    results = json.loads((arguments.out / "gates.json").read_text())
    plain, arm = results["plain"]["1"], results["previous"]["1"]
    assert arm["perplexity"] == pytest.approx(plain["perplexity"])
    assert arm["accuracy"] == plain["accuracy"]
    assert max(abs(value) for layer in arm["gate"] for value in layer) == pytest.approx(1e-12, rel=0.1)


def test_figures_are_measured_again_where_something_else_is_asked_for(tmp_path: Path) -> None:
    made = []

    def measure() -> dict[str, float]:
        made.append(1)
        return {"perplexity": float("nan"), "number": len(made)}

    path, asked = tmp_path / "found.json", {"tokens": 64, "text": ("a", "b")}
    assert (
        measured_once(path, asked, measure) == measured_once(path, asked, measure) == {"perplexity": None, "number": 1}
    )
    assert measured_once(path, {**asked, "tokens": 65}, measure)["number"] == 2
    assert measured_once(path, {**asked, "tokens": 65, "text": ("a",)}, measure)["number"] == 3
    path.write_text('{"perplexity": 1.0}')  # as an earlier version kept it
    assert measured_once(path, asked, measure)["number"] == 4
