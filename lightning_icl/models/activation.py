"""Activations that transformers composes of many operations, run as PyTorch's one for a visit: the same function."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers.activations import FastGELUActivation, NewGELUActivation

from lightning_icl.models.adapters import replaced_forwards

_TANH_GELUS = (NewGELUActivation, FastGELUActivation)


@contextmanager
def fused_activations(model: nn.Module) -> Iterator[None]:
    """Every GELU in its tanh form that is spelled out is one operation until the context ends.

    Spelled out it makes eight passes over the widest states of a block.
    """
    with replaced_forwards({module: _tanh_gelu for module in model.modules() if type(module) in _TANH_GELUS}):
        yield


def _tanh_gelu(states: Tensor) -> Tensor:
    """In place where no gradient will ask for the input: a fresh block of that size costs as much as the function."""
    if torch.is_grad_enabled():
        return gelu(states, approximate="tanh")
    return torch.ops.aten.gelu_(states, approximate="tanh")
