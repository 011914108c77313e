"""Faster ways to the same numbers, for the length of a visit: products, activations and embeddings.

bfloat16 weights are multiplied in float32 on processors without instructions for bfloat16: they stay in bfloat16,
half of float32's memory, and a product widens a few of their rows at a time. Rounding is that of bfloat16
instructions, which sum in float32 as well and round the result. N tokens, I and O widths of input and output.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear
from transformers import PreTrainedModel
from transformers.activations import FastGELUActivation, NewGELUActivation
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.pytorch_utils import Conv1D

from lightning_icl.bfloat16_support import multiplies_bfloat16
from lightning_icl.models._adapters import replaced_forwards
from lightning_icl.models.projection import weight_of
from lightning_icl.records import QueryBatch

# At most this many numbers are widened at a time (3 MB): larger blocks are new pages from the system each time.
_WIDENED = 3 << 18
_TANH_GELUS = (NewGELUActivation, FastGELUActivation)


@contextmanager
def wide_products(model: PreTrainedModel) -> Iterator[None]:
    """Every linear projection of a bfloat16 model runs as `wide_linear` until the context ends, where that is faster.

    Nothing happens on processors with bfloat16 instructions, on other devices, and to weights of other types.
    """
    if model.device.type != "cpu" or multiplies_bfloat16():
        yield
        return
    forwards = {
        module: partial(_forward, module)
        for module in model.modules()
        if type(module) in (nn.Linear, Conv1D, FalconLinear) and module.weight.dtype == torch.bfloat16
    }
    with replaced_forwards(forwards):
        yield


def _forward(module: Any, states: Tensor) -> Tensor:
    return wide_linear(states, weight_of(module), module.bias)


def wide_linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`states @ weight.T + bias`, calculated in float32 and rounded once to the type of the states.

    Args:
        states: (..., I).
        weight: (O, I); a transposed view is as good.
        bias: (O,) or None.

    Returns:
        (..., O), differentiable once in all three. Nothing wide is kept for the backward pass.
    """
    return _WideLinear.apply(states, weight, bias)


class _WideLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # Only the narrow tensors: widened ones would triple the memory of a step.
        ctx.save_for_backward(states, weight)
        wide, out = states.float(), states.new_empty(*states.shape[:-1], len(weight))
        # Rows of outputs are independent, so pieces give the same numbers.
        for rows in _pieces(weight):
            out[..., rows] = linear(wide, weight[rows].float(), None if bias is None else bias[rows].float())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        wide = grad.float().flatten(0, -2)
        to_states = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            # Summed in float32 over pieces and rounded once at the end, as a single product would be.
            summed = wide.new_zeros(len(wide), weight.shape[1])
            for rows in _pieces(weight):
                summed.addmm_(wide[:, rows], weight[rows].float())
            to_states = summed.to(states.dtype).view_as(states)
        if ctx.needs_input_grad[1]:
            to_weight = (wide.T @ states.float().flatten(0, -2)).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            to_bias = wide.sum(0).to(weight.dtype)
        return to_states, to_weight, to_bias


def _pieces(weight: Tensor) -> Iterator[slice]:
    step = max(1, _WIDENED // weight.shape[1])
    return (slice(start, start + step) for start in range(0, len(weight), step))


@contextmanager
def fused_activations(model: nn.Module) -> Iterator[None]:
    """Every GELU in its tanh form that is spelled out is one operation until the context ends.

    Spelled out it makes eight passes over the widest states of a block.
    """
    # Exact types: a subclass may compute something else in its forward.
    with replaced_forwards({module: _tanh_gelu for module in model.modules() if type(module) in _TANH_GELUS}):
        yield


def _tanh_gelu(states: Tensor) -> Tensor:
    """In place where no gradient will ask for the input: a fresh block of that size costs as much as the function."""
    if torch.is_grad_enabled():
        return gelu(states, approximate="tanh")
    return torch.ops.aten.gelu_(states, approximate="tanh")


@contextmanager
def shared_embedding(embedding: nn.Module, batch: Callable[[], QueryBatch | None]) -> Iterator[None]:
    """Until the context ends, a batch that is observed again under the same embedding weights gets the same tensor.

    Args:
        embedding: the model's input embedding.
        batch: the batch under observation; None in a prefix or in training, which are left alone.
    """
    look_up = embedding.forward
    # The last batch, the weights it was embedded with, and the result.
    last: tuple[QueryBatch, torch.UntypedStorage, Tensor] | None = None

    def embed(token_ids: Tensor) -> Tensor:
        nonlocal last
        observed = batch()
        if observed is None:
            return look_up(token_ids)
        # By storage: a control may train embeddings, and then a parameter of the same name holds other numbers.
        weight = embedding.get_parameter("weight").untyped_storage()
        if last is None or last[0] is not observed or last[1] is not weight:
            last = observed, weight, look_up(token_ids)
        return last[2]

    with replaced_forwards({embedding: embed}):
        yield
