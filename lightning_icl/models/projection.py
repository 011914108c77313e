"""A projection's weight whichever way round it is stored. Axes: O outputs, I inputs."""

from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def weight_of(projection: Any) -> Tensor:
    """(O, I): the weight, as a view; `Conv1D` stores its transpose."""
    weight: Tensor = projection.weight  # not `get_parameter`, since a fine-tuning puts plain tensors in its place
    return weight.mT if isinstance(projection, Conv1D) else weight


def output_width(module: nn.Module) -> int:
    """How many outputs a projection has; 0 for any other module."""
    return len(weight_of(module)) if isinstance(module, nn.Linear | Conv1D) else 0
