"""Model objects that are not plain: each is refused with what to do."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tiny_models import VARIANTS, tiny_model
from tiny_task import tiny_data
from torch import nn

from lightning_icl.errors import ModelError
from lightning_icl.models.plain import check_plain
from lightning_icl.probing.probe import ICLProbe

# What other libraries warn of while they make these models is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")

CASES = {
    "compiled": (torch.compile, r"torch\.compile.*model\._orig_mod"),
    "wrapped": (nn.DataParallel, r"DataParallel.*model\.module"),
    "LoRA on projections": (lambda model: lora(model, "k_proj", "v_proj"), "merge_and_unload"),
    "LoRA elsewhere": (lambda model: lora(model, "down_proj"), "merge_and_unload"),
    "the base of a LoRA model": (lambda model: lora(model, "q_proj").base_model.model, "merge_and_unload"),
    "learnt prompt": (
        lambda model: get_peft_model(model, PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")),
        "PEFT adapter",
    ),
    "adapter of transformers": (
        lambda model: model.add_adapter(LoraConfig(target_modules=["q_proj"])) or model,
        "PEFT",
    ),
    "int8 layers": (
        lambda model: torch.ao.quantization.quantize_dynamic(model, {nn.Linear}),
        "quantised .model.layers.0.self_attn.q_proj",
    ),
    "int8 head": (
        lambda model: torch.ao.quantization.quantize_dynamic(
            model, {"lm_head": torch.ao.quantization.default_dynamic_qconfig}
        ),
        "quantised .lm_head",
    ),
    "integer weight": (lambda model: with_key(model, integers()), "quantised"),
    "weight norm": (lambda model: with_key(model, nn.utils.parametrizations.weight_norm(nn.Linear(32, 16))), "own"),
    "LoRA by hand": (lambda model: with_key(model, Lora(32, 16)), r"lora_a.*merge"),
    "no head": (lambda model: model.model, "LlamaModel has no head"),
    "no language model": (lambda model: nn.Linear(2, 2), "not a Linear"),
    "no model": (lambda model: "gpt2", "not a str"),
}


class Lora(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.lora_a = nn.Parameter(torch.zeros(2, inputs))


def lora(model: nn.Module, *targets: str) -> nn.Module:
    return get_peft_model(model, LoraConfig(target_modules=list(targets)))


def integers() -> nn.Linear:
    layer = nn.Linear(32, 16)
    layer.weight = nn.Parameter(torch.zeros(16, 32, dtype=torch.int8), requires_grad=False)
    return layer


def with_key(model: nn.Module, projection: nn.Module) -> nn.Module:
    model.model.layers[1].self_attn.k_proj = projection
    return model


@pytest.mark.parametrize("kind", CASES)
def test_what_is_not_plain_is_refused(kind: str, tmp_path: Path) -> None:
    change, message = CASES[kind]
    make: Callable[[nn.Module], object] = change
    with pytest.raises(ModelError, match=message):
        ICLProbe(make(tiny_model("llama")), tiny_data(tmp_path).demonstrations)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_supported_model_is_plain(variant: str) -> None:
    check_plain(tiny_model(variant))


def test_a_merged_model_is_plain() -> None:
    model = tiny_model("llama")
    check_plain(lora(copy.deepcopy(model), "k_proj").merge_and_unload())
