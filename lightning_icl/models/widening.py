"""Products of bfloat16 weights calculated in float32, on processors without instructions for bfloat16.

Weights stay in bfloat16, half of float32's memory; a product widens a few of their rows at a time. Rounding is that of
bfloat16 instructions, which sum in float32 as well and round the result. N tokens, I and O widths of input and output.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.pytorch_utils import Conv1D

from lightning_icl.models.adapters import replaced_forwards
from lightning_icl.processor import multiplies_bfloat16

# Widened weights are at most this many numbers (3 MB): larger blocks come from the system anew each time.
_WIDENED = 3 << 18


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
    weight = module.weight.T if isinstance(module, Conv1D) else module.weight
    return wide_linear(states, weight, module.bias)


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
        ctx.save_for_backward(states, weight)
        wide, out = states.float(), states.new_empty(*states.shape[:-1], len(weight))
        for rows in _pieces(weight):
            out[..., rows] = linear(wide, weight[rows].float(), None if bias is None else bias[rows].float())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        wide = grad.float().flatten(0, -2)
        to_states = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
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
