"""How alike two matrices are: direction, size, rank, and the subspaces they read from and write to."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Likeness(NamedTuple):
    """Two matrices side by side; NaN where either is zero."""

    cosine: Float[Tensor, "*batch"]
    """`⟨A, B⟩ / (‖A‖ ‖B‖)`, Frobenius."""
    norm_ratio: Float[Tensor, "*batch"]
    """`‖B‖ / ‖A‖`, Frobenius."""
    left: Float[Tensor, "*batch rank"]
    """Cosines of the principal angles between their leading left singular subspaces, largest first."""
    right: Float[Tensor, "*batch rank"]
    """The same of the right ones."""
    one_rank: Float[Tensor, "*batch"]
    """Effective rank of A."""
    other_rank: Float[Tensor, "*batch"]
    """Effective rank of B."""


def matrix_cosine(
    one: Float[Tensor, "*#batch row column"], other: Float[Tensor, "*#batch row column"]
) -> Float[Tensor, "*batch"]:
    """`⟨A, B⟩ / (‖A‖ ‖B‖)`, Frobenius; NaN where either is zero.

    >>> matrix_cosine(torch.eye(2), torch.ones(2, 2))
    tensor(0.7071)
    """
    return (_unit(one) * _unit(other)).sum((-2, -1))


def _unit(matrix: Tensor) -> Tensor:
    # A zero matrix gives 0 / 0, which is NaN and means undefined.
    return matrix / torch.linalg.matrix_norm(matrix, keepdim=True)


def effective_rank(singular_values: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch"]:
    """The exponential of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007).

    >>> effective_rank(torch.tensor([[2.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
    tensor([2., 1.])
    """
    share = singular_values / singular_values.sum(-1, keepdim=True)
    # `entr` is 0 at 0, where the plain formula is NaN.
    return torch.special.entr(share).sum(-1).exp()


def likeness(
    one: Float[Tensor, "*#batch width width"], other: Float[Tensor, "*#batch width width"], rank: int
) -> Likeness:
    """Compare two matrices.

    Args:
        one: A.
        other: B.
        rank: singular vectors that span the subspaces compared, at most the width. Two random subspaces of dimension r
            in D dimensions have squared cosines of r / D on average.
    """
    one_u, one_s, one_v = torch.linalg.svd(one)
    other_u, other_s, other_v = torch.linalg.svd(other)
    # Cosines of principal angles are the singular values of the product of the two bases.
    left = torch.linalg.svdvals(one_u[..., :rank].mT @ other_u[..., :rank])
    right = torch.linalg.svdvals(one_v[..., :rank, :] @ other_v[..., :rank, :].mT)
    cosine = matrix_cosine(one, other)
    # Subspaces of a zero matrix are arbitrary.
    undefined = cosine.isnan()[..., None]
    norms = torch.linalg.vector_norm(other_s, dim=-1), torch.linalg.vector_norm(one_s, dim=-1)
    return Likeness(
        cosine=cosine,
        norm_ratio=norms[0] / norms[1],
        # Rounding may take a cosine above 1, and its angle to NaN.
        left=left.clamp(max=1.0).masked_fill(undefined, torch.nan),
        right=right.clamp(max=1.0).masked_fill(undefined, torch.nan),
        one_rank=effective_rank(one_s),
        other_rank=effective_rank(other_s),
    )
