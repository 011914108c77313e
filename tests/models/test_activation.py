"""The fused activation is the function that the model spells out, and goes when the visit ends."""

import pytest
import torch
from torch import nn
from transformers.activations import FastGELUActivation, NewGELUActivation

from lightning_icl.models._fast_paths import fused_activations


@pytest.mark.parametrize("spelled_out", [NewGELUActivation, FastGELUActivation])
def test_fused_activation_is_the_same_function_with_the_same_gradient(spelled_out: type[nn.Module]) -> None:
    model, inputs = nn.Sequential(spelled_out()), torch.linspace(-9, 9, 2001, dtype=torch.float64, requires_grad=True)
    expected = model(inputs)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), inputs)
    with fused_activations(model):
        found = model(inputs)
        assert "Gelu" in str(found.grad_fn)
    (gradient,) = torch.autograd.grad(found.sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-9)
    assert "Gelu" not in str(model(inputs).grad_fn)


@pytest.mark.parametrize("spelled_out", [NewGELUActivation, FastGELUActivation])
def test_without_gradients_it_is_the_same_function_in_the_same_memory(spelled_out: type[nn.Module]) -> None:
    model, inputs = nn.Sequential(spelled_out()), torch.linspace(-9, 9, 2001, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(inputs)
        with fused_activations(model):
            found = model(inputs)
    assert found.data_ptr() == inputs.data_ptr()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
