"""Rotary embedding in fewer passes gives the numbers of plain transformers, and goes when the visit ends."""

import sys

import pytest
import torch
from tiny_models import VARIANTS, tiny_model
from torch import nn
from transformers import PreTrainedModel

from lightning_icl.models._fast_rotary import fast_rotary
from lightning_icl.models.architecture import architecture_of
from lightning_icl.models.capture import Capture

IDS = torch.randint(3, 97, (2, 17), generator=torch.Generator().manual_seed(1))
# The others have no rotary embedding or one of their own kind.
ROTATED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi", "smollm3", "stablelm", "granite", "falcon")


def attention_of(model: PreTrainedModel) -> nn.Module:
    architecture = architecture_of(model.config)
    return model.get_submodule(architecture.layers)[0].get_submodule(architecture.attention)  # type: ignore[index]


def function_of(attention: nn.Module) -> object:
    return getattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb", None)


# XGLM, which has no rotary embedding, does not run in float64.
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "xglm"])
def test_numbers_are_those_of_plain_transformers(variant: str) -> None:
    model = tiny_model(variant, dtype=torch.float64)
    attention = attention_of(model)
    before = function_of(attention)
    with torch.inference_mode():
        expected = model(IDS, use_cache=False).logits
        with fast_rotary(attention):
            found = model(IDS, use_cache=False).logits
            family = type(attention).__module__.split(".")[-2]
            assert (function_of(attention) is not before) == (family in ROTATED)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert function_of(attention) is before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_queries_and_keys_are_rotated_alike(dtype: torch.dtype) -> None:
    attention = attention_of(tiny_model("llama"))
    apply = function_of(attention)
    query, key = torch.randn(2, 5, 4, 8, dtype=dtype).transpose(1, 2), torch.randn(2, 2, 5, 8, dtype=dtype)
    angles = torch.randn(1, 5, 4, dtype=torch.float64).repeat(1, 1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    given = query.clone(), key.clone()
    expected = apply(query, key, cos, sin)  # type: ignore[operator]
    with fast_rotary(attention), torch.inference_mode():
        found = function_of(attention)(query, key, cos, sin)  # type: ignore[operator]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        assert one.is_contiguous()
        torch.testing.assert_close(one, other, rtol=0, atol=8 * torch.finfo(dtype).eps)
    assert torch.equal(query, given[0])
    assert torch.equal(key, given[1])


def test_gradients_are_those_of_plain_transformers() -> None:
    model = tiny_model("llama", dtype=torch.float64)
    weight = model.get_parameter("model.layers.0.self_attn.q_proj.weight")
    expected, found = [], []
    for into in (expected, found):
        with fast_rotary(attention_of(model)) if into is found else torch.enable_grad():
            into += torch.autograd.grad(model(IDS, use_cache=False).logits.square().sum(), [weight])
    assert torch.equal(found[0], expected[0])


def test_visits_inside_one_another_leave_the_function_in_place() -> None:
    one, other = tiny_model("llama"), tiny_model("llama", seed=1)
    before = function_of(attention_of(one))
    first, second = Capture(one), Capture(other)
    first.__enter__()
    second.__enter__()
    assert function_of(attention_of(one)) is not before
    # Not the one that was opened last.
    first.__exit__()
    second.__exit__()
    assert function_of(attention_of(one)) is before
