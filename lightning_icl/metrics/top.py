"""How many of the highest items of one order are among the highest of another, ties counted fairly."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_icl.metrics.rank import tie_ranks


def top_recall(
    one: Float[Tensor, "row item"],
    other: Float[Tensor, "row item"],
    first: int,
    visible: Bool[Tensor, "row item"] | None = None,
    *,
    resolution: float = 0.0,
) -> Float[Tensor, " row"]:
    """Expected share of the `first` highest items of one that are among the `first` highest of the other.

    Where items tied in a score compete for the last places, each is as likely as the next to get one: the share is its
    mean over all orders of the tied, on both sides. Without ties at the boundary that is the plain share.

    Args:
        one: scores of the items.
        other: other scores of the same items.
        first: how many are highest.
        visible: which items count; all without.
        resolution: sorted scores closer than this share of the row's largest magnitude are tied.

    Returns:
        (row,), float64; NaN where no more items count than `first`, since all would be found.

    >>> top_recall(torch.tensor([[3.0, 1.0, 2.0, 0.0]]), torch.tensor([[3.0, 2.0, 1.0, 1.0]]), 2)
    tensor([0.5000], dtype=torch.float64)
    >>> top_recall(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[1.0, 1.0, 0.0]]), 1)
    tensor([0.5000], dtype=torch.float64)
    """
    counted = torch.full(one.shape[:1], one.shape[1], device=one.device) if visible is None else visible.sum(-1)
    if first >= one.shape[1]:
        # The early return keeps `first` below the row's length for what follows.
        return torch.full(one.shape[:1], torch.nan, dtype=torch.float64, device=one.device)
    chances = [_chances(scores, first, visible, resolution) for scores in (one, other)]
    return ((chances[0] * chances[1]).sum(-1) / first).masked_fill(counted <= first, torch.nan)


def _chances(scores: Tensor, first: int, visible: Tensor | None, resolution: float) -> Tensor:
    """Chance of each item to be among the `first` highest, (row, item)."""
    ranks = tie_ranks(-scores, visible, resolution=resolution)  # 0 for the highest; what is invisible comes last
    # How many items share each rank.
    sizes = torch.zeros_like(scores, dtype=torch.float64).scatter_add_(1, ranks, torch.ones_like(scores).double())
    higher = sizes.cumsum(1) - sizes
    # Of a tie with s items that competes for the r places left, each gets one with chance r / s.
    return ((first - higher) / sizes.clamp(min=1)).clamp(0, 1).gather(1, ranks)
