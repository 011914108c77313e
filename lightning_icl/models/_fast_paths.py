"""Faster ways to the same numbers, for the length of a visit: products, blocks and embeddings.

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
from torch.nn.functional import gelu, linear, silu
from transformers import PreTrainedModel
from transformers.activations import FastGELUActivation, GELUTanh, NewGELUActivation, SiLUActivation
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.pytorch_utils import Conv1D

from lightning_icl.bfloat16_support import multiplies_bfloat16
from lightning_icl.models._adapters import replaced_forwards
from lightning_icl.models.projection import weight_of
from lightning_icl.records import QueryBatch

# At most this many numbers are widened at a time (3 MB): larger blocks are new pages from the system each time.
_WIDENED = 3 << 18
# Numbers of the unembedding that are multiplied at a time: some 1,000 rows.
_HEAD = 3 << 18


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


def _pieces(weight: Tensor, numbers: int = _WIDENED) -> Iterator[slice]:
    step = max(1, numbers // weight.shape[1])
    return (slice(start, start + step) for start in range(0, len(weight), step))


@contextmanager
def head_in_pieces(head: nn.Module) -> Iterator[None]:
    """Until the context ends, the unembedding is multiplied by some of its rows at a time, where that is faster.

    On processors one product with tens of thousands of rows takes up to twice as long as with a thousand after the
    other. Nothing happens on other devices, to narrow types, and to a head with a bias or few rows.
    """
    weight = head.weight if type(head) is nn.Linear and head.bias is None else None
    if weight is None or weight.device.type != "cpu" or weight.element_size() < 4 or weight.numel() < 8 * _HEAD:
        yield
        return
    with replaced_forwards({head: partial(_head, head, head.forward)}):
        yield


def _head(module: Any, forward: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    # A control may train the head, or the embedding that is tied to it.
    if torch.is_grad_enabled() and module.weight.requires_grad:
        return forward(states)
    return _FrozenHead.apply(states, module.weight)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        flat = states.flatten(0, -2)
        out = states.new_empty(len(flat), len(weight))
        for rows in _pieces(weight, _HEAD):
            torch.mm(flat, weight[rows].T, out=out[:, rows])
        return out.view(*states.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.saved_tensors[0], None


@contextmanager
def fused_blocks(model: nn.Module) -> Iterator[None]:
    """Until the context ends, blocks compute their widest states in as few passes and fresh blocks of memory as can be.

    GELU in its tanh form is one operation, where spelled out it makes eight passes. Activations without gradients are
    in place, and so is the product of a gated block.
    """
    activations = {
        module: _ACTIVATIONS[type(module)]
        for module in model.modules()
        # Exact types: a subclass may compute something else in its forward.
        if type(module) in _ACTIVATIONS
    }
    gated = {module: partial(_gated, module, module.forward) for module in model.modules() if _is_gated(module)}
    with replaced_forwards(activations | gated):
        yield


def _tanh_gelu(states: Tensor) -> Tensor:
    """In place where no gradient will ask for the input: a fresh block of that size costs as much as the function."""
    if torch.is_grad_enabled():
        return gelu(states, approximate="tanh")
    return torch.ops.aten.gelu_(states, approximate="tanh")


def _silu(states: Tensor) -> Tensor:
    return silu(states, inplace=not torch.is_grad_enabled())


_ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    **dict.fromkeys((NewGELUActivation, FastGELUActivation, GELUTanh), _tanh_gelu),
    **dict.fromkeys((SiLUActivation, nn.SiLU), _silu),
}


_GATED = LlamaMLP.forward.__code__


def _is_gated(module: nn.Module) -> bool:
    """Whether a module's forward is `down(act(gate(x)) * up(x))`, as most families have it."""
    # By what it does: each family has a class of its own, and a release that changes one must not be overruled.
    code = getattr(type(module).forward, "__code__", None)
    return code is not None and (code.co_code, code.co_names) == (_GATED.co_code, _GATED.co_names)


def _gated(module: Any, forward: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return forward(states)
    return module.down_proj(module.act_fn(module.gate_proj(states)).mul_(module.up_proj(states)))


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
