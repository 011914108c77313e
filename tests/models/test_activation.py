"""The fused activation is the function that the model spells out, and goes when the visit ends."""

import pytest
import torch
from tiny_models import tiny_model
from torch import nn
from transformers.activations import FastGELUActivation, GELUTanh, NewGELUActivation, SiLUActivation

from lightning_icl.models._fast_paths import fused_blocks


@pytest.mark.parametrize("spelled_out", [NewGELUActivation, FastGELUActivation])
def test_fused_activation_is_the_same_function_with_the_same_gradient(spelled_out: type[nn.Module]) -> None:
    model, inputs = nn.Sequential(spelled_out()), torch.linspace(-9, 9, 2001, dtype=torch.float64, requires_grad=True)
    expected = model(inputs)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), inputs)
    with fused_blocks(model):
        found = model(inputs)
        assert "Gelu" in str(found.grad_fn)
    (gradient,) = torch.autograd.grad(found.sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-9)
    assert "Gelu" not in str(model(inputs).grad_fn)


@pytest.mark.parametrize("spelled_out", [NewGELUActivation, FastGELUActivation, GELUTanh, SiLUActivation, nn.SiLU])
def test_without_gradients_it_is_the_same_function_in_the_same_memory(spelled_out: type[nn.Module]) -> None:
    model, inputs = nn.Sequential(spelled_out()), torch.linspace(-9, 9, 2001, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(inputs)
        with fused_blocks(model):
            found = model(inputs)
    assert found.data_ptr() == inputs.data_ptr()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("variant", "gated"), [("llama", True), ("gemma3_text", True), ("phi3", False)])
def test_block_without_gradients_is_the_same_function_and_leaves_its_input_alone(variant: str, gated: bool) -> None:
    block = tiny_model(variant, dtype=torch.float64).get_submodule("model.layers.0.mlp")
    states = torch.randn(2, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = states.clone()
    with torch.inference_mode():
        expected = block(states)
        with fused_blocks(block):
            assert ("forward" in vars(block)) is gated
            torch.testing.assert_close(block(states), expected, rtol=0, atol=1e-12)
    assert torch.equal(states, before)


def test_gated_block_has_the_same_gradient() -> None:
    block = tiny_model("llama", dtype=torch.float64).get_submodule("model.layers.0.mlp")
    states = torch.randn(5, 32, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(block(states).square().sum(), states)
    with fused_blocks(block):
        (found,) = torch.autograd.grad(block(states).square().sum(), states)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
