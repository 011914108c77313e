"""Products by oneDNN on AMD's newer processors, for the length of a visit.

PyTorch multiplies float32 by MKL, which leaves AVX-512 to Intel's processors. oneDNN, which PyTorch has for bfloat16,
uses it wherever it is: with the units of a Zen 5 a product takes half the time. Both sum in float32.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.pytorch_utils import Conv1D

from lightning_icl.models._adapters import replaced_forwards
from lightning_icl.models.projection import weight_of


def mkl_is_slow() -> bool:
    """Whether MKL leaves vector instructions of this processor unused that oneDNN uses."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    # AVX-VNNI tells a Zen 5 from a Zen 4, whose units are half as wide; there it has not been measured.
    able = "AMD" in str(capabilities.get("cpu_name")) and capabilities.get("avx512_f") and capabilities.get("avx_vnni")
    return bool(able) and torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@contextmanager
def onednn_products(model: PreTrainedModel) -> Iterator[None]:
    """Linear projections in float32 run by oneDNN until the context ends, where that is faster.

    Nothing happens on other processors and devices, under autocast, to other types and to weights that are trained.
    """
    if model.device.type != "cpu" or not mkl_is_slow():
        yield
        return
    forwards = {
        # Around what stands there already, which training needs.
        module: partial(_product, module, module.forward)
        for module in model.modules()
        if type(module) in (nn.Linear, Conv1D, FalconLinear)
    }
    with replaced_forwards(forwards):
        yield


def _product(module: Any, forward: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    weight = weight_of(module)
    other = states.dtype != torch.float32 or weight.dtype != torch.float32
    if other or torch.is_autocast_enabled("cpu"):
        return forward(states)
    if not torch.is_grad_enabled():
        return onednn_linear(states, weight, module.bias)
    # A control may train weights that are no projection's.
    if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
        return forward(states)
    # In rows: what a function of one's own returns as a view must not be added to in place, as Falcon's blocks do.
    return _FrozenProduct.apply(states.flatten(0, -2), weight, module.bias).view(*states.shape[:-1], len(weight))


class _FrozenProduct(torch.autograd.Function):
    """Of weights that are not trained: the gradient goes to the states alone."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return onednn_linear(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return onednn_linear(gradient, weight.T), None, None


def onednn_linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`states @ weight.T + bias` by oneDNN, which autograd does not follow.

    Args:
        states: (..., I), float32 on a processor.
        weight: (O, I); a transposed view is as good.
        bias: (O,) or None.
    """
    # No activation is asked to be part of it.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return product
