"""Cosines, as every similarity of the paper is one."""

import torch
from jaxtyping import Float
from torch import Tensor


def cosine(one: Float[Tensor, "*shape width"], other: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape"]:
    """`cos(one, other)` over the last axis; NaN where either is the zero vector.

    Each vector is scaled by its largest entry first, so that neither tiny nor huge ones lose their length.

    >>> cosine(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, 3.0], [1.0, 0.0]]))
    tensor([0.9600,    nan])
    """
    return (_unit(one) * _unit(other)).sum(-1)


def _unit(vector: Tensor) -> Tensor:
    scaled = vector / vector.abs().amax(-1, keepdim=True)
    return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)


def normalised(vector: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
    """`u(v) = v / ||v||` over the last axis; NaN for the zero vector."""
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
