"""Gates trained alone: every arm trains numbers of momentum and nothing else, as many as its control or as stated."""

import argparse
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model
from tiny_task import word_tokenizer

from experiments.momentum.gates import ARMS, tables, trainings
from experiments.momentum.measure import learnt
from lightning_icl.models.momentum.conversion import to_momentum
from lightning_icl.pretraining.models import new_model


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_starts_as_the_plain_model_and_trains_gates_alone(name: str, tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    arguments = argparse.Namespace(
        init=str(tmp_path / "model"), data=str(tmp_path), out=tmp_path, seed=1, block=32, batch=1, steps=1, rate=0.01,
        accelerator="cpu",
    )  # fmt: skip
    model = new_model(trainings(arguments)[name], word_tokenizer())
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    gates = sum(value.numel() for key, value in trained.items() if key.endswith("momentum_gate"))
    others = sum(value.numel() for value in trained.values()) - gates
    assert (gates, others) == (3 * 4, 3 * 2 if "learnt" in name else 0)
    ids = torch.arange(3, 30)[None]
    plain = tiny_model("llama")
    plain.set_attn_implementation("sdpa")
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_the_table_counts_what_is_trained_and_shows_it_by_layer() -> None:
    accuracy = {"a": {"zsl": 0.25, "icl": 0.5}}
    model = to_momentum(tiny_model("llama"), eta=0.5, learn=True, gate_init=0.25)
    plain = {"perplexity": 10.0, "accuracy": accuracy, "eta": None, "gate": None}
    text = tables({"plain": plain, "both": {"perplexity": 9.5, "accuracy": accuracy, **learnt(model)}})
    assert "| both | 18 | 9.500 | -0.500 | 25.0 | 50.0 |" in text
    assert "| both | 2 | +0.250 +0.250 +0.250 +0.250 | +0.500 +0.500 |" in text
