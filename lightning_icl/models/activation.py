"""Activations that transformers composes of many operations, run as PyTorch's one for a visit: the same function."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.nn.functional import gelu
from transformers.activations import FastGELUActivation, NewGELUActivation

from lightning_icl.models.adapters import replaced_forwards

_TANH_GELUS = (NewGELUActivation, FastGELUActivation)


@contextmanager
def fused_activations(model: nn.Module) -> Iterator[None]:
    """Every GELU in its tanh form that is spelled out is one operation until the context ends.

    Spelled out it makes eight passes over the widest states of a block.
    """
    fused = partial(gelu, approximate="tanh")
    with replaced_forwards({module: fused for module in model.modules() if type(module) in _TANH_GELUS}):
        yield
