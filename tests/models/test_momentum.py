"""Momentum models against the formula by plain loops; saved, loaded, decoded, padded, packed, trained, taken back."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from momentum_loops import added_by_loops
from tiny_models import VARIANTS, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from lightning_icl import from_momentum, load_model, to_momentum
from lightning_icl.errors import ModelError, UserError
from lightning_icl.models.architecture import ARCHITECTURES
from lightning_icl.models.finding import find_model

WRAPPABLE = [
    name
    for name, (model_type, settings) in VARIANTS.items()
    if not ARCHITECTURES[model_type].adapter and "momentum_attention" not in settings
]
IDS = torch.randint(3, 97, (2, 75), generator=torch.Generator().manual_seed(0))


def momentum_model(variant: str = "llama", base: str = "sdpa", **settings: object) -> PreTrainedModel:
    model = tiny_model(variant)
    model.set_attn_implementation(base)
    model = to_momentum(model, **{"eta": 0.8, **settings})
    with torch.no_grad():  # heads that differ
        for name, parameter in model.named_parameters():
            if name.endswith("momentum_logit"):
                parameter.normal_(1.0, 0.5, generator=torch.Generator().manual_seed(1))
    return model


def logits(model: PreTrainedModel, ids: Tensor = IDS, **inputs: object) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **{"use_cache": False, **inputs}).logits


@pytest.mark.parametrize("variant", WRAPPABLE)
def test_every_architecture_of_the_interface_equals_loops(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, etas = IDS[:, :24], [0.5, 0.9, 0.7]
    model = to_momentum(tiny_model(variant), eta=etas)
    got = logits(model, ids)
    plain = from_momentum(model)
    monkeypatch.setattr(*added_by_loops(plain, lambda layer, head, ago: etas[layer] ** ago))
    torch.testing.assert_close(got, logits(plain, ids), atol=2e-5, rtol=1e-5)


def test_a_learnt_rate_is_one_for_each_value_head(monkeypatch: pytest.MonkeyPatch) -> None:
    model = momentum_model("llama", "eager", learn=True)
    etas = [block.self_attn.momentum_logit.sigmoid().tolist() for block in model.model.layers]
    assert all(len(set(layer)) == 2 for layer in etas)
    got = logits(model, IDS[:, :24])
    monkeypatch.setattr(*added_by_loops(model, lambda layer, head, ago: etas[layer][head // 2] ** ago))
    torch.testing.assert_close(got, logits(from_momentum(model), IDS[:, :24]), atol=2e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:flex_attention called without")
@pytest.mark.parametrize("base", ["eager", "flex_attention"])
def test_implementations_underneath_agree(base: str) -> None:
    mask = torch.ones_like(IDS)
    mask[0, :9] = 0
    packed = torch.cat([torch.arange(40), torch.arange(35)]).expand(2, -1)
    models = [momentum_model("llama", each, learn=True) for each in ("sdpa", base)]
    with torch.compiler.set_stance("force_eager"):  # flex attention's formula, without compiling its kernel
        for inputs in ({}, {"attention_mask": mask}, {"position_ids": packed}):
            shown = mask.bool() if "attention_mask" in inputs else torch.ones_like(mask).bool()
            one, other = (logits(model, **inputs)[shown] for model in models)
            torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)
        settings = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False}
        assert torch.equal(*(model.generate(IDS, **settings) for model in models))


@pytest.mark.parametrize("variant", ["llama", "gpt2", "mistral-window", "gemma2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_the_sequences_alone(variant: str, side: str) -> None:
    model = momentum_model(variant, "eager" if variant == "gemma2" else "sdpa", learn=True)
    lengths = (75, 31)
    ids, mask = torch.zeros_like(IDS), torch.zeros_like(IDS)
    places = [slice(75 - n, 75) if side == "left" else slice(0, n) for n in lengths]
    for row, (length, place) in enumerate(zip(lengths, places, strict=True)):
        ids[row, place], mask[row, place] = IDS[row, :length], 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    got = logits(model, ids, attention_mask=mask, position_ids=positions)
    for row, (length, place) in enumerate(zip(lengths, places, strict=True)):
        torch.testing.assert_close(got[row, place], logits(model, IDS[[row], :length])[0], atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["llama", "gpt2", "mistral-window"])
def test_packed_documents_equal_the_documents_alone(variant: str) -> None:
    model, lengths = momentum_model(variant), (40, 1, 34)
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(2, -1)
    got = logits(model, IDS, position_ids=positions).split(lengths, 1)
    for part, ids in zip(got, IDS.split(lengths, 1), strict=True):
        torch.testing.assert_close(part, logits(model, ids), atol=3e-5, rtol=1e-5)


def test_packed_documents_without_positions_are_refused() -> None:
    borders = torch.tensor([0, 40, 75], dtype=torch.int32)
    with pytest.raises(ModelError, match="`position_ids` that restart"):
        logits(momentum_model(), IDS[:1], cu_seq_lens_q=borders, cu_seq_lens_k=borders)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_cached_steps_equal_the_full_pass(cache: str) -> None:
    model = momentum_model("llama", learn=True)
    settings = {"max_new_tokens": 40, "min_new_tokens": 40, "do_sample": False, "output_logits": True}
    found = model.generate(
        IDS, return_dict_in_generate=True, cache_implementation=cache, disable_compile=True, **settings
    )
    whole = logits(model, found.sequences)
    torch.testing.assert_close(torch.stack(found.logits, 1), whole[:, 74:-1], atol=3e-5, rtol=1e-5)


def test_pieces_of_several_tokens_continue_a_cache() -> None:
    model, cache = momentum_model("gpt2"), DynamicCache()
    mask = torch.ones_like(IDS)
    mask[1, :5] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    pieces = [
        logits(
            model, IDS[:, a:b], attention_mask=mask[:, :b], position_ids=positions[:, a:b], past_key_values=cache,
            use_cache=True,
        )
        for a, b in ((0, 20), (20, 21), (21, 75))
    ]  # fmt: skip
    whole = logits(model, attention_mask=mask, position_ids=positions)
    torch.testing.assert_close(torch.cat(pieces, 1)[mask.bool()], whole[mask.bool()], atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_from_padded_prompts_equals_naive_recomputation(beams: int) -> None:
    model = momentum_model("gpt2", learn=True)
    ids, mask = IDS[:, :20].clone(), torch.ones(2, 20, dtype=torch.long)
    ids[1, :8], mask[1, :8] = 0, 0
    settings = {"max_new_tokens": 15, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    batched = model.generate(ids, attention_mask=mask, **settings)
    for row, start in ((0, 0), (1, 8)):
        alone = model.generate(ids[[row], start:], attention_mask=mask[[row], start:], use_cache=False, **settings)
        assert torch.equal(batched[row, start : start + alone.shape[1]], alone[0])


def test_a_window_that_drops_values_from_the_cache_is_refused() -> None:
    model = momentum_model("mistral-window")
    within = model.generate(IDS[:, :10], max_new_tokens=10, do_sample=False)
    assert torch.equal(within, model.generate(IDS[:, :10], max_new_tokens=10, do_sample=False, use_cache=False))
    with pytest.raises(ModelError, match="use_cache=False"):
        model.generate(IDS[:, :10], max_new_tokens=30, min_new_tokens=30, do_sample=False)
    with pytest.raises(ModelError, match="use_cache=False"):
        model.generate(IDS[:, :40], max_new_tokens=2, min_new_tokens=2, past_key_values=DynamicCache())


@pytest.mark.parametrize(("variant", "learn"), [("llama", True), ("gpt2", False)])
def test_a_fresh_process_loads_the_same_model_after_one_line(variant: str, learn: bool, tmp_path: Path) -> None:
    model = momentum_model(variant, learn=learn)
    model.save_pretrained(tmp_path / "model")
    program = (
        "import torch, lightning_icl\nfrom transformers import AutoModelForCausalLM\n"
        "from safetensors.torch import load_file, save_file\n"
        "lightning_icl.enable_momentum()\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'model')!r})\n"
        f"ids = load_file({str(tmp_path / 'ids')!r})['ids']\n"
        "with torch.no_grad(): logits = model(input_ids=ids).logits\n"
        f"save_file({{'logits': logits}}, {str(tmp_path / 'logits')!r})\n"
    )
    from safetensors.torch import load_file, save_file

    save_file({"ids": IDS}, tmp_path / "ids")
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=Path(__file__).parents[2])
    torch.testing.assert_close(load_file(tmp_path / "logits")["logits"], logits(model), atol=1e-6, rtol=0)


def test_without_that_line_a_momentum_model_is_refused_not_run_plainly(tmp_path: Path) -> None:
    momentum_model("gpt2").save_pretrained(tmp_path)
    imports = "import lightning_icl\nfrom transformers import AutoModelForCausalLM as M\n"
    program = f"{imports}M.from_pretrained({str(tmp_path)!r})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode
    assert "momentum" in run.stderr.splitlines()[-1]


def test_it_is_saved_and_loaded_again_and_again(tmp_path: Path) -> None:
    model = momentum_model("llama", eta=[0.3, 0.6, 0.9])
    model.save_pretrained(tmp_path / "0")
    for number in range(2):
        loaded = load_model(find_model(str(tmp_path / str(number))))
        assert torch.equal(logits(loaded), logits(model))
        loaded.save_pretrained(tmp_path / str(number + 1))
    eager = AutoModelForCausalLM.from_pretrained(tmp_path / "0", attn_implementation="eager")
    assert eager.config.momentum_attention["base"] == "eager"
    torch.testing.assert_close(logits(eager), logits(model), atol=2e-5, rtol=1e-5)
    assert load_model(find_model(f"random:{tmp_path / '0'}")).config._attn_implementation == "momentum"


@pytest.mark.parametrize("learn", [False, True])
def test_there_and_back_is_the_same_model_to_the_bit(learn: bool, tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    before, config = logits(model), model.config.to_dict()
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert not torch.equal(logits(to_momentum(model, learn=learn)), before)
    from_momentum(model)
    assert model.config.to_dict() == config
    assert weights.keys() == dict(model.named_parameters()).keys()
    assert torch.equal(logits(model), before)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")), before)


def test_a_plain_checkpoint_takes_momentum_while_loading(tmp_path: Path) -> None:
    plain = tiny_model("llama")
    plain.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="momentum")
    plain.set_attn_implementation("sdpa")
    expected = logits(to_momentum(plain))
    assert torch.equal(logits(loaded), expected)
    config = AutoConfig.from_pretrained(tmp_path, attn_implementation="momentum")
    config.momentum_attention = {"eta": 0.9, "learn": True}
    learning = AutoModelForCausalLM.from_pretrained(tmp_path, config=config)
    etas = [block.self_attn.momentum_logit.sigmoid() for block in learning.model.layers]
    torch.testing.assert_close(torch.stack(etas), torch.full((3, 2), 0.9))
    torch.testing.assert_close(logits(learning), expected, atol=1e-5, rtol=1e-5)


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    model.zero_grad()
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_recomputed_activations_give_the_same_gradients() -> None:
    model = momentum_model("llama", learn=True).train()
    expected = gradients(model)
    assert all(gradient.any() for name, gradient in expected.items() if name.endswith("momentum_logit"))
    model.activation_checkpointing_enable()
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, expected[name]), name


def test_compiled_models_give_the_same_gradients() -> None:
    program = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from lightning_icl import to_momentum
sizes = dict(num_hidden_layers=1, hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2)
model = to_momentum(LlamaForCausalLM(LlamaConfig(vocab_size=97, **sizes)), learn=True)
ids = torch.arange(3, 83)[None]
def gradients(run):
    model.zero_grad(); run(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]
expected = gradients(model)
got = gradients(torch.compile(model, backend="aot_eager", fullgraph=True))
assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(expected, got))
"""
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("variant", "reason"), [("bloom", "in their own code"), ("gpt_neo", "in their own code")])
def test_models_whose_attention_cannot_be_wrapped_are_refused(variant: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        to_momentum(tiny_model(variant))
    model_type, settings = VARIANTS[variant]
    with pytest.raises(ModelError, match=reason):
        AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings, momentum_attention={"eta": 0.9}))


def test_momentum_by_name_alone_on_a_finished_model_says_how_to_add_it() -> None:
    model = tiny_model("llama")
    model.set_attn_implementation("momentum")
    with pytest.raises(ModelError, match="to_momentum"):
        logits(model)


def test_settings_that_cannot_be_are_named() -> None:
    model = tiny_model("llama")
    with pytest.raises(UserError, match="strictly between 0 and 1"):
        to_momentum(model, eta=1.0)
    with pytest.raises(ModelError, match="2 values of eta for 3 layers"):
        to_momentum(model, eta=[0.5, 0.5])
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match="cannot wrap the attention implementation 'flash_attention_2'"):
        to_momentum(model)
    with pytest.raises(ModelError, match=r"Unknown: \['rate'\]"):
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model("llama", num_hidden_layers=1, momentum_attention={"rate": 1})
        )
