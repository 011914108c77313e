"""The implicit weight patch of Dherin et al. (arXiv 2507.16003): context acts as a rank-one update of the MLP.

Let a be the input of the MLP's first matrix W at the query token, after the norm before it, without context, and a_C
with context. Then `W a_C = (W + ΔW) a` with `ΔW = W (a_C − a) aᵀ / ‖a‖²`, exactly: a block that reads the context does
to the query what a patched block does without it. (The residual stream beside the MLP moves by the context too; the
paper adds it as a bias.)

Fine-tuning of keys and values leaves W alone; it moves a to a_FT, and so induces a patch of its own,
`W (a_FT − a) aᵀ / ‖a‖²`. Both patches have the right vector a, so their Frobenius cosine and norm ratio are those of
their effects on the query, `W (a_C − a)` and `W (a_FT − a)`: the two are compared without either patch being made.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_icl.metrics.similarity import Resolution, update_of


class PatchLikeness(NamedTuple):
    """The patch of the context beside the patch of fine-tuning; NaN where a patch is zero."""

    identity_error: Float[Tensor, "batch"]
    """`‖(W + ΔW) a − W a_C‖ / ‖W a_C‖`: rounding alone."""
    icl_size: Float[Tensor, "batch"]
    """`‖ΔW‖ / ‖W‖` of the context's patch, Frobenius."""
    ft_size: Float[Tensor, "batch"]
    """The same of fine-tuning's patch."""
    cosine: Float[Tensor, "batch"]
    """Frobenius cosine of the two patches."""
    other_cosine: Float[Tensor, "batch"]
    """Cosine of the context's effect on a query with the effect of fine-tuning on another query."""


def implicit_patch(
    weight: Float[Tensor, "hidden width"],
    bare: Float[Tensor, "batch width"],
    moved: Float[Tensor, "batch width"],
) -> Float[Tensor, "batch hidden width"]:
    """`ΔW = W (a_C − a) aᵀ / ‖a‖²` (Dherin et al., theorem 2.2).

    Args:
        weight: W.
        bare: a, the input without context.
        moved: a_C, the input with context.

    >>> patch = implicit_patch(torch.eye(2), torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 1.0]]))
    >>> (torch.eye(2) + patch) @ torch.tensor([2.0, 0.0])
    tensor([[2., 1.]])
    """
    left, right = patch_factors(weight, bare, moved)
    return left[:, :, None] * right[:, None, :]


def patch_factors(
    weight: Float[Tensor, "hidden width"],
    bare: Float[Tensor, "batch width"],
    moved: Float[Tensor, "batch width"],
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch width"]]:
    """The patch as an outer product, `W (a_C − a)` and `a / ‖a‖²`."""
    # As factors: the patch itself is a matrix as large as W for each query.
    return (moved - bare) @ weight.mT, bare / bare.square().sum(-1, keepdim=True)


def compare_patches(
    weight: Float[Tensor, "hidden width"],
    bare: Float[Tensor, "batch width"],
    in_context: Float[Tensor, "batch width"],
    finetuned: Float[Tensor, "batch width"],
    other_move: Float[Tensor, "batch width"],
) -> PatchLikeness:
    """The context's patch against the one that fine-tuning induces.

    Much of an update may be the same for every query; the cosine with another query's says how much. Cosines are NaN
    where a move is zero up to rounding.

    Args:
        weight: W, the MLP's first matrix; gate and up projections stand one on the other.
        bare: a, zero-shot.
        in_context: a_C.
        finetuned: a_FT.
        other_move: a_FT − a of another query; NaN where there is none.
    """
    icl, right = patch_factors(weight, bare, in_context)
    ft, _ = patch_factors(weight, bare, finetuned)
    expected = in_context @ weight.mT
    # `ΔW a` from the factors, in the order in which a patched layer would compute it.
    patched = bare @ weight.mT + icl * (right * bare).sum(-1, keepdim=True)
    # Moves of the residual stream come from rotated positions, whose rounding is larger.
    resolution = Resolution.of(torch.finfo(bare.dtype).eps, rotated=True)
    unmoved = update_of(in_context, bare, resolution.icl).zero
    unlearnt = update_of(finetuned, bare, resolution.ft).zero
    norm, size = torch.linalg.vector_norm, torch.linalg.matrix_norm(weight)
    return PatchLikeness(
        identity_error=norm(patched - expected, dim=-1) / norm(expected, dim=-1),
        icl_size=norm(icl, dim=-1) * norm(right, dim=-1) / size,
        ft_size=norm(ft, dim=-1) * norm(right, dim=-1) / size,
        cosine=_cosine(icl, ft).masked_fill(unmoved | unlearnt, torch.nan),
        # Another query's move may be NaN, for the first query, and stays so.
        other_cosine=_cosine(icl, other_move @ weight.mT).masked_fill(unmoved, torch.nan),
    )


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm
    return (one / norm(one, dim=-1, keepdim=True) * (other / norm(other, dim=-1, keepdim=True))).sum(-1)
