"""Finding models, and refusing those that cannot be read safely or probed rightly."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import VARIANTS, tiny_model
from transformers import CONFIG_MAPPING, GPT2Config, MistralConfig

from lightning_icl.errors import ModelError, NumericalError
from lightning_icl.models.architecture import ARCHITECTURES, REFUSED, architecture_of
from lightning_icl.models.capture import Capture
from lightning_icl.models.finding import find_model
from lightning_icl.models.loading import load_config, load_model


def test_fresh_weights_have_the_same_configuration(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    source = find_model(f"random:{tmp_path}")
    fresh, again = load_model(source), load_model(source)
    assert fresh.config.hidden_size == model.config.hidden_size
    weights = "model.layers.0.self_attn.k_proj.weight"
    assert not torch.equal(fresh.get_parameter(weights), model.get_parameter(weights))
    assert torch.equal(fresh.get_parameter(weights), again.get_parameter(weights))


def test_saved_weights_load_bit_identically(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    model.save_pretrained(tmp_path)
    loaded = load_model(find_model(str(tmp_path)))
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter)


def test_pickled_weights_are_refused_unless_allowed(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="--allow-pickle"):
        find_model(str(tmp_path))
    assert find_model(str(tmp_path), allow_pickle=True).allow_pickle


@pytest.mark.parametrize(
    ("name", "message"),
    [("./none", "does not exist"), ("random:", "names no model"), ("a/b/c", "does not exist")],
)
def test_what_is_no_model_is_named(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_model(name)


def test_a_hub_name_without_a_network_says_what_to_do() -> None:
    with pytest.raises(ModelError, match="give its folder"):
        load_config(find_model("nobody/no-such-model"))


def test_a_folder_without_a_configuration_or_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        find_model(str(tmp_path))
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ModelError):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert find_model(f"random:{tmp_path}").fresh


@pytest.mark.parametrize("model_type", [name for name in REFUSED if name in CONFIG_MAPPING])
def test_models_that_cannot_be_probed_rightly_are_refused_with_the_reason(model_type: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be probed: (it|its|some)"):
        architecture_of(CONFIG_MAPPING[model_type]())


def test_an_unknown_architecture_is_refused() -> None:
    config = MistralConfig()
    config.model_type = "mistrall"
    with pytest.raises(ModelError, match="Did you mean 'mistral'"):
        architecture_of(config)


def test_the_table_knows_every_variant_of_the_tests() -> None:
    assert {model_type for model_type, _ in VARIANTS.values()} == set(ARCHITECTURES)


def test_numbers_that_are_not_finite_stop_the_run_at_query_and_layer(tmp_path: Path) -> None:
    from lightning_icl.data.queries import Query, collate
    from lightning_icl.probing.observation import View
    from lightning_icl.records import Condition

    model = tiny_model("llama")
    with torch.no_grad():
        model.get_parameter("model.layers.1.self_attn.o_proj.weight")[0, 0] = float("nan")
    batch = collate([Query(index=41, gold=0, prompt_ids=(5, 6), answers=((7,), (8,)))])
    with Capture(model) as capture:
        view = View.prepare(capture, Condition(name="zsl", prefix_token_ids=(1,)))
        with pytest.raises(NumericalError, match=r"query 41 under condition 'zsl', .* layer 1"):
            view.observe(capture, batch)


def test_the_registered_attention_refuses_to_work_outside_a_capture() -> None:
    model = tiny_model("llama")
    model.config._attn_implementation = "lightning_icl"
    with pytest.raises(ModelError, match="while a Capture"):
        model(input_ids=torch.tensor([[1, 2, 3]]))
