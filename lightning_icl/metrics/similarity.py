"""Cosines, as every similarity of the paper is one, and differences that rounding alone could have made."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# How far views that are equal in exact arithmetic lie apart, in units of their type's resolution relative to their
# length. At the same positions equal steps round alike, and the last rounding, of half a unit at most an entry,
# remains: one to five times the errors measured against float64. Elsewhere every step rounds anew (measured: up to 2).
_SAME_POSITIONS, _OTHER_POSITIONS = 0.5, 2.0
# Rotary angles are float32 in every type (measured: up to 5 units at other positions).
_ANGLES = 8.0 * torch.finfo(torch.float32).eps


class Resolution(NamedTuple):
    """What rounding leaves of the difference of two equal views, relative to their length."""

    icl: float
    """In-context minus zero-shot."""
    ft: float
    """Fine-tuned minus zero-shot: the same tokens at the same positions."""

    @classmethod
    def of(cls, epsilon: float, *, rotated: bool = False) -> "Resolution":
        """That of views computed in a type with resolution `epsilon` (`torch.finfo(dtype).eps`).

        Args:
            epsilon: of the type.
            rotated: whether in-context queries stand at other positions, which rotary embedding turns further.
        """
        # Two independent sources of error, bounded by their sum.
        icl = _OTHER_POSITIONS * epsilon + _ANGLES if rotated else _SAME_POSITIONS * epsilon
        return cls(icl=icl, ft=_SAME_POSITIONS * epsilon)


class Update(NamedTuple):
    """One view minus another."""

    vector: Float[Tensor, "*shape width"]
    """The difference."""
    rounding: Float[Tensor, "*shape"]
    """Length of what rounding may have added, as a share of the difference's length: from 1 on it may be all of it."""

    @property
    def zero(self) -> Tensor:
        """(*shape): where it is zero up to rounding."""
        # Written as a negation, so that 0 / 0, which compares false, counts as zero.
        return ~(self.rounding < 1)


def update_of(
    after: Float[Tensor, "*shape width"],
    before: Float[Tensor, "*shape width"],
    resolution: float | Float[Tensor, "*shape"] | None = None,
) -> Update:
    """The difference of two views; `resolution` (by default that of their type) times the longer may be rounding.

    >>> update_of(torch.tensor([1.0, 1.0 + 1e-8]), torch.ones(2)).zero
    tensor(True)
    """
    if resolution is None:
        resolution = Resolution.of(torch.finfo(after.dtype).eps).ft
    vector = after - before
    # Relative to the longer view: it is the one whose rounding is larger.
    return Update(vector, resolution * torch.maximum(length(after), length(before)) / length(vector))


def update_cosine(one: Update, other: Update) -> Float[Tensor, "*shape"]:
    """Cosine of two updates; NaN where either is zero up to rounding."""
    return cosine(one.vector, other.vector).masked_fill(one.zero | other.zero, torch.nan)


def cosine(one: Float[Tensor, "*shape width"], other: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape"]:
    """`cos(one, other)` over the last axis; NaN where either is the zero vector.

    Each vector is scaled by its largest entry first, so that neither tiny nor huge ones lose their length.

    >>> cosine(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, 3.0], [1.0, 0.0]]))
    tensor([0.9600,    nan])
    """
    return (_unit(one) * _unit(other)).sum(-1)


def _unit(vector: Tensor) -> Tensor:
    # Division by the largest entry is exact enough and keeps squares within the type's range.
    scaled = vector / vector.abs().amax(-1, keepdim=True)
    # The zero vector gives 0 / 0 = NaN, which is what an undefined direction should be.
    return scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)


def normalised(vector: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
    """`u(v) = v / ||v||` over the last axis; NaN for the zero vector."""
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)


def length(vector: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape"]:
    """`||v||` over the last axis, in float64, where squares of small numbers do not vanish."""
    return torch.linalg.vector_norm(vector, dim=-1, dtype=torch.float64)
