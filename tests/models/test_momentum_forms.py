"""Models with forms of momentum and gates: by loops, decoded, padded, packed, saved, unchanged where gates are 0."""

import copy
from pathlib import Path

import pytest
import torch
from momentum_loops import added_by_loops
from tiny_models import tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lightning_icl import from_momentum, load_model, to_momentum
from lightning_icl.errors import ModelError, UserError
from lightning_icl.models.finding import find_model

IDS = torch.randint(3, 97, (2, 40), generator=torch.Generator().manual_seed(0))
FORMS = ("sum", "mean", "previous")


def gated_model(form: str, variant: str = "llama", base: str = "sdpa") -> PreTrainedModel:
    """A model whose heads differ in their gates and, where the form has any, in their η."""
    model = tiny_model(variant)
    model.set_attn_implementation(base)
    to_momentum(model, form=form, learn=form != "previous", gate_init=0.0)
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("momentum_logit", "momentum_gate")):
                parameter.normal_(0.7, 0.5, generator=source)
    return model


def logits(model: PreTrainedModel, ids: Tensor = IDS, **inputs: object) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **{"use_cache": False, **inputs}).logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variant", ["llama", "gpt2"])
def test_every_form_equals_loops(form: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gated_model(form, variant, "eager")
    parameters = {name: value.double() for name, value in model.named_parameters()}
    gates = [value.tolist() for name, value in parameters.items() if name.endswith("momentum_gate")]
    etas = [value.sigmoid().tolist() for name, value in parameters.items() if name.endswith("momentum_logit")]
    assert all(len(layer) == 4 for layer in gates)

    def kernel(layer: int, head: int, ago: int) -> float:
        if form == "previous":
            return gates[layer][head] * (ago == 1)
        eta = etas[layer][head * len(etas[layer]) // 4]
        return gates[layer][head] * eta**ago * ((1 - eta) / eta if form == "mean" else 1)

    ids = IDS[:, :24]
    got = logits(model, ids)
    monkeypatch.setattr(*added_by_loops(model, kernel))
    torch.testing.assert_close(got, logits(from_momentum(model), ids), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("variant", "base"), [("llama", "sdpa"), ("gpt2", "eager"), ("gemma2", "eager")])
def test_gates_of_zero_leave_a_model_unchanged_to_the_bit(form: str, variant: str, base: str) -> None:
    model = tiny_model(variant)
    model.set_attn_implementation(base)
    plain = logits(model)
    assert torch.equal(logits(to_momentum(model, form=form, gate_init=0.0)), plain)
    assert not torch.equal(logits(to_momentum(model, form=form, gate_init=0.5)), plain)
    assert torch.equal(logits(from_momentum(model)), plain)
    assert not any("momentum" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("form", FORMS)
def test_closed_gates_have_a_slope_to_learn_from(form: str) -> None:
    model = to_momentum(tiny_model("llama"), form=form, gate_init=0.0)
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    slopes = [value.grad for name, value in model.named_parameters() if name.endswith("momentum_gate")]
    assert len(slopes) == 3
    assert all(slope.ne(0).all() for slope in slopes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_the_sequences_alone(form: str, side: str) -> None:
    model, mask = gated_model(form), torch.zeros(2, 60, dtype=torch.long)
    place = slice(20, 60) if side == "left" else slice(0, 40)
    ids = torch.zeros(2, 60, dtype=torch.long)
    ids[:, place], mask[:, place] = IDS, 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    got = logits(model, ids, attention_mask=mask, position_ids=positions)[:, place]
    torch.testing.assert_close(got, logits(model), atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_packed_documents_equal_the_documents_alone(form: str) -> None:
    model, lengths = gated_model(form), (20, 1, 19)
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(2, -1)
    got = logits(model, position_ids=positions).split(lengths, 1)
    for part, ids in zip(got, IDS.split(lengths, 1), strict=True):
        torch.testing.assert_close(part, logits(model, ids), atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_cached_steps_equal_the_full_pass(form: str, cache: str) -> None:
    model = gated_model(form)
    settings = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "output_logits": True}
    found = model.generate(
        IDS, return_dict_in_generate=True, cache_implementation=cache, disable_compile=True, **settings
    )
    whole = logits(model, found.sequences)
    torch.testing.assert_close(torch.stack(found.logits, 1), whole[:, 39:-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_saved_and_loaded(form: str, tmp_path: Path) -> None:
    model = gated_model(form)
    model.save_pretrained(tmp_path)
    loaded = load_model(find_model(str(tmp_path)))
    assert loaded.config.momentum_attention["form"] == form
    assert torch.equal(logits(loaded), logits(model))


def test_a_plain_checkpoint_takes_gates_while_loading(tmp_path: Path) -> None:
    plain = tiny_model("llama")
    plain.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, attn_implementation="momentum")
    config.momentum_attention = {"form": "mean", "learn": True, "gate_init": 0.25}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, config=config)
    gates = [block.self_attn.momentum_gate for block in loaded.model.layers]
    assert torch.equal(torch.stack(gates), torch.full((3, 4), 0.25))
    plain.set_attn_implementation("sdpa")
    expected = logits(to_momentum(plain, form="mean", learn=True, gate_init=0.25))
    torch.testing.assert_close(logits(loaded), expected, atol=1e-6, rtol=0)


def test_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(UserError, match="no eta to learn"):
        to_momentum(tiny_model("llama"), form="previous", learn=True)
    with pytest.raises(UserError, match="gate_init = nan"):
        to_momentum(tiny_model("llama"), gate_init=float("nan"))
    for given, message in (({"form": "maen"}, "Did you mean 'mean'"), ({"gates": 0}, r"Unknown: \['gates'\]")):
        config = copy.deepcopy(tiny_model("llama").config)
        config.momentum_attention = given
        with pytest.raises((ModelError, UserError), match=message):
            AutoModelForCausalLM.from_config(config)
