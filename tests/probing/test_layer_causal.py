"""Layer-causal fine-tuning: no layer learns for what is above it."""

import copy
from pathlib import Path

import pytest
import torch
from exactness import RATE, make_trainer
from tiny_models import tiny_model
from tiny_task import tiny_data
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from lightning_icl.errors import ModelError
from lightning_icl.models.kv import slices
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.layer_causal import Reading
from lightning_icl.probing.probe import ICLProbe


def updates(model: PreTrainedModel, folder: Path, reading: Reading | None) -> dict[str, Tensor]:
    """By parameter what five steps change."""
    data = tiny_data(folder)
    probe = ICLProbe(model, data.demonstrations)
    make_trainer(KVFinetuning(RATE, layer_causal=reading)).fit(probe, datamodule=data)
    assert probe.finetuned is not None
    return {part.name: probe.finetuned.overlay.tensors[part.name] - part.read() for part in slices(model)}


@pytest.mark.parametrize("reading", ["attention", "block"])
@pytest.mark.parametrize("variant", ["gpt2", "llama", "gpt_neox", "opt", "gptj", "bloom"])
def test_a_layer_does_not_learn_for_what_is_above_it(variant: str, reading: Reading, tmp_path: Path) -> None:
    model = tiny_model(variant)
    altered = copy.deepcopy(model)
    last = {part.name for part in slices(model) if part.layer == 2}
    with torch.no_grad():
        for name, parameter in altered.named_parameters():
            if any(name.startswith(part.rsplit(".", 3)[0]) for part in last):
                parameter += 0.1
    plain, other = updates(model, tmp_path, reading), updates(altered, tmp_path, reading)
    below = [name for name in plain if name not in last]
    assert below
    for name in below:
        assert torch.equal(plain[name], other[name]), name
        assert plain[name].any()
    ordinary = updates(model, tmp_path, None), updates(altered, tmp_path, None)
    assert all(not torch.equal(ordinary[0][name], ordinary[1][name]) for name in below)


@pytest.mark.parametrize("reading", ["attention", "block"])
def test_a_step_is_the_gradient_of_each_layers_own_loss(reading: Reading, tmp_path: Path) -> None:
    model = tiny_model("llama")
    data = tiny_data(tmp_path, shots=1)
    probe = ICLProbe(model, data.demonstrations)
    make_trainer(KVFinetuning(RATE, layer_causal=reading)).fit(probe, datamodule=data)
    ids = torch.tensor([[*data.demonstrations.bos, *data.demonstrations.examples[0]]])
    body = model.model
    state = body.embed_tokens(ids)
    turn = body.rotary_emb(state, torch.arange(ids.shape[1])[None])
    mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)[None, None]
    for layer, block in enumerate(body.layers):
        state = state.detach()
        attended = (
            state + block.self_attn(block.input_layernorm(state), position_embeddings=turn, attention_mask=mask)[0]
        )
        after = attended + block.mlp(block.post_attention_layernorm(attended))
        seen = attended if reading == "attention" else after
        loss = cross_entropy(model.lm_head(body.norm(seen))[0, :-1], ids[0, 1:])
        for name in ("k_proj", "v_proj"):
            weight = getattr(block.self_attn, name).weight
            (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
            learnt = probe.finetuned.overlay.tensors[f"model.layers.{layer}.self_attn.{name}.weight"]
            assert torch.allclose(learnt, weight - RATE * gradient, atol=1e-6)
        state = after


def test_models_that_change_their_logits_after_the_unembedding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="granite"):
        updates(tiny_model("granite"), tmp_path, "block")
