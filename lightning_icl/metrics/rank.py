"""Kendall's rank correlation (tau-b), exact, for many rows at once, in steps that run on any device.

Discordant pairs are the inversions of a permutation. Places and ranks are cut into about sqrt(n) blocks of as many.
Pairs in one block of places are compared directly, and so are pairs in one block of ranks; both take sqrt(n)
comparisons of whole rows with themselves, shifted. Of pairs that share neither block, a table of how many ranks of each
block stand in each block of places tells all. This makes n sqrt(n) comparisons of small numbers, which for prompts of
thousands of tokens is faster than n log n steps of a sort.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Rows are taken in pieces of about this many numbers: few enough for a processor's cache, many enough to fill a GPU.
_PIECE = {"cpu": 1 << 18}
_PIECE_ELSEWHERE = 1 << 22  # about 0.4 GB


def kendall_tau(
    x: Float[Tensor, "row item"],
    y: Float[Tensor, "row item"],
    visible: Bool[Tensor, "row item"] | None = None,
    *,
    resolution: float = 0.0,
) -> Float[Tensor, " row"]:
    """Kendall's tau-b of each row; NaN where either side has one value only.

    `tau_b = (C - D) / sqrt((n0 - n1) (n0 - n2))` with C concordant and D discordant of n0 pairs, of which n1 are tied
    in x and n2 in y.

    Args:
        x: scores.
        y: scores of the same items.
        visible: which items count; all without.
        resolution: sorted scores closer than this share of the row's largest magnitude are tied.

    Returns:
        (row,), float64.

    >>> kendall_tau(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[1.0, 3.0, 2.0, 4.0]]))
    tensor([0.6667], dtype=torch.float64)
    """
    # A row's work is independent of the others', so pieces change nothing.
    step = max(1, _PIECE.get(x.device.type, _PIECE_ELSEWHERE) // max(1, x.shape[1]))
    tau = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for start in range(0, len(x), step):
        piece = slice(start, start + step)
        shown = None if visible is None else visible[piece]
        first, second = (tie_ranks(scores[piece], shown, resolution=resolution) for scores in (x, y))
        tau[piece] = _tau(first, second, shown)
    return tau


def tie_ranks(
    scores: Float[Tensor, "row item"], visible: Bool[Tensor, "row item"] | None = None, *, resolution: float = 0.0
) -> Int[Tensor, "row item"]:
    """Rank of each item in its row, equal for tied items; invisible items share the rank above all others.

    Neighbours in sorted order are tied when they are no further apart than `resolution` times the row's largest
    magnitude: sums that are equal in exact arithmetic differ by rounding.

    >>> tie_ranks(torch.tensor([[0.3, 0.1, 0.3]]))
    tensor([[1, 0, 1]])
    """
    width = resolution * _largest(scores, visible)
    if visible is not None:
        # +inf puts invisible items behind all others, where they share one rank.
        scores = scores.masked_fill(~visible, torch.inf)
    ordered, order = scores.sort(dim=-1)
    step = torch.zeros_like(order)
    # Neighbours only: chains of close scores are one tie, however far their ends are apart.
    step[:, 1:] = ordered[:, 1:] - ordered[:, :-1] > width  # inf - inf is NaN and not greater: invisible items tie
    return torch.empty_like(order).scatter_(-1, order, step.cumsum(-1))


def _largest(scores: Tensor, visible: Tensor | None) -> Tensor:
    magnitude = scores.abs() if visible is None else scores.abs().masked_fill(~visible, 0.0)
    return magnitude.amax(-1, keepdim=True)


def _tau(x: Tensor, y: Tensor, visible: Tensor | None) -> Tensor:
    items = x.shape[1]
    count = torch.full((len(x),), items, device=x.device) if visible is None else visible.sum(-1)
    # Both ranks in one number, as narrow as holds them: sorting takes most of the time.
    bits = items.bit_length()
    number = torch.int32 if 2 * bits < 32 else torch.int64
    # x in the high bits and y in the low: one sort orders by x and, where x ties, by y.
    both = ((x.to(number) << bits) | y.to(number)).sort(dim=-1).values
    # Stable, so that ties in y keep the order of x and add no inversion.
    y_ordered, order = (both & ((1 << bits) - 1)).sort(dim=-1, stable=True)
    # In the order of x, items are discordant that y's order turns round: the inversions of `order` or of its inverse.
    discordant = inversions(order)
    pairs = _pairs(count)
    tied_x = _tied_pairs(both >> bits, count)
    tied_y = _tied_pairs(y_ordered, count)
    tied_both = _tied_pairs(both, count)
    # Every pair is concordant, discordant or tied; those tied on both sides were subtracted twice.
    concordant = pairs - tied_x - tied_y + tied_both - discordant
    # Two roots and not one of the product, which exceeds float64's exact range for long rows.
    tau = (concordant - discordant) / (pairs - tied_x).sqrt() / (pairs - tied_y).sqrt()
    return torch.where((pairs > tied_x) & (pairs > tied_y), tau, torch.nan)


def _pairs(count: Tensor) -> Tensor:
    return count.double() * (count.double() - 1) / 2


def _tied_pairs(ordered: Tensor, count: Tensor) -> Tensor:
    """Pairs of equal entries among the first `count` of each ordered row, float64."""
    place = torch.arange(ordered.shape[1], device=ordered.device)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    # The running maximum of starts is the start of each entry's own run.
    start = torch.where(new, place, 0).cummax(-1).values
    # The k-th entry of a run ties with the k before it.
    return torch.where(place < count[:, None], place - start, 0).sum(-1).double()


def inversions(permutation: Int[Tensor, "row item"]) -> Int[Tensor, " row"]:
    """Pairs that stand in descending order, in each row a permutation of 0..n-1.

    >>> inversions(torch.tensor([[2, 0, 1], [0, 1, 2]]))
    tensor([2, 0])
    """
    rows, items = permutation.shape
    # Rounded up, so that side² blocks hold all items.
    side = math.isqrt(max(items - 1, 0)) + 1
    numbers = torch.arange(side * side, device=permutation.device)
    small = numbers.to(torch.int16 if side * side < 1 << 15 else torch.int32)
    # What is added behind the items is in order and larger than all, so it inverts nothing.
    ranks = small.repeat(rows, 1)  # what is added behind the items stands in order
    ranks[:, :items] = permutation
    # The inverse permutation: pairs in one block of ranks are found in it as those in one block of places are here.
    places = torch.empty_like(ranks).scatter_(1, ranks.long(), small.expand_as(ranks))
    within = _descending(ranks.view(rows, side, side)) + _descending((places // side).view(rows, side, side))
    cell = numbers // side * side + ranks // side
    table = torch.zeros(ranks.shape, dtype=torch.int32, device=ranks.device)
    table = table.scatter_add_(1, cell, torch.ones_like(table)).view(rows, side, side)
    before = table.cumsum(1) - table
    # Items in earlier blocks of places with higher blocks of ranks: each pair of cells counts once.
    before_and_above = before.flip(2).cumsum(2).flip(2) - before
    return within + (table * before_and_above).sum((1, 2))


def _descending(blocks: Int[Tensor, "row block item"]) -> Int[Tensor, " row"]:
    """Pairs inside a block that stand in descending order, those of all blocks of a row together."""
    items = blocks.permute(2, 1, 0).contiguous()  # shifts then move whole contiguous slices
    # An item exceeds at most all that follow it, so counts of small blocks fit in a byte.
    narrow = len(items) <= 256
    counts = torch.zeros(items.shape, dtype=torch.uint8 if narrow else torch.int32, device=blocks.device)
    for shift in range(1, len(items)):
        counts[:-shift] += (items[:-shift] > items[shift:]).view(torch.uint8)
    return counts.sum((0, 1))
