"""How many of the highest items of one order are among the highest of another, ties counted fairly."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def top_recall(
    one: Int[Tensor, "row item"],
    other: Int[Tensor, "row item"],
    first: int,
    visible: Bool[Tensor, "row item"] | None = None,
) -> Float[Tensor, " row"]:
    """Expected share of the `first` highest items of one that are among the `first` highest of the other.

    Where tied items compete for the last places, each is as likely as the next to get one: the share is its mean over
    all orders of the tied, on both sides. Without ties at the boundary that is the plain share.

    Args:
        one: ranks of the items (`metrics.rank.tie_ranks`).
        other: other ranks of the same items.
        first: how many are highest.
        visible: which items count; all without.

    Returns:
        (row,), float64; NaN where no more items count than `first`, since all would be found.

    >>> one, other = torch.tensor([[3, 1, 2, 0]]), torch.tensor([[3, 2, 0, 0]])
    >>> top_recall(one, other, 2)
    tensor([0.5000], dtype=torch.float64)
    >>> top_recall(torch.tensor([[2, 1, 0]]), torch.tensor([[1, 1, 0]]), 1)
    tensor([0.5000], dtype=torch.float64)
    """
    counted = torch.full(one.shape[:1], one.shape[1], device=one.device) if visible is None else visible.sum(-1)
    if first >= one.shape[1]:
        # The early return keeps `first` below the row's length for what follows.
        return torch.full(one.shape[:1], torch.nan, dtype=torch.float64, device=one.device)
    chances = [_chances(ranks, first, counted[:, None].to(ranks.dtype)) for ranks in (one, other)]
    return ((chances[0] * chances[1]).sum(-1) / first).masked_fill(counted <= first, torch.nan)


def _chances(ranks: Tensor, first: int, counted: Tensor) -> Tensor:
    """Chance of each item to be among the `first` highest of those counted (row, 1), as (row, item) in float64."""
    # The item with `first` above it, or its tie, is on the boundary. A rank is how many stand below, so it is the
    # highest rank that leaves `first` places at least.
    boundary = ranks.masked_fill(ranks > counted - first, -1).amax(-1, keepdim=True)
    # What does not count has the rank `counted`.
    above, tied = (ranks > boundary) & (ranks < counted), ranks == boundary
    # Of a tie with s items that competes for the r places left, each gets one with chance r / s.
    share = (first - above.sum(-1, keepdim=True)) / tied.sum(-1, keepdim=True).double().clamp(min=1)
    return torch.where(above, 1.0, torch.where(tied, share, 0.0))
