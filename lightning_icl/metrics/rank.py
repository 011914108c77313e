"""Kendall's rank correlation (tau-b), exact, for many rows at once, in steps that run on any device.

Discordant pairs are the inversions of a permutation. Places and ranks are cut into about sqrt(n) blocks of as many.
Pairs in one block of places are compared directly, and so are pairs in one block of ranks; both take sqrt(n)
comparisons of whole rows with themselves, shifted. Of pairs that share neither block, a table of how many ranks of each
block stand in each block of places tells all. This makes n sqrt(n) comparisons of small numbers, which for prompts of
thousands of tokens is faster than n log n steps of a sort.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Rows are taken in pieces of about this many numbers: few enough for a processor's cache, many enough to fill a GPU.
_PIECE = {"cpu": 1 << 18}
_PIECE_ELSEWHERE = 1 << 22  # about 0.4 GB


def tie_ranks(
    scores: Float[Tensor, "row item"], visible: Bool[Tensor, "row item"] | None = None, *, resolution: float = 0.0
) -> Int[Tensor, "row item"]:
    """How many items of its row stand below each item; tied items share a rank, and invisible ones that above all.

    Neighbours in sorted order are tied when they are no further apart than `resolution` times the row's largest
    magnitude: sums that are equal in exact arithmetic differ by rounding.

    >>> tie_ranks(torch.tensor([[0.3, 0.1, 0.3]]))
    tensor([[1, 0, 1]], dtype=torch.int16)
    """
    ranks = torch.empty(scores.shape, dtype=_narrow(scores.shape[1]), device=scores.device)
    for piece in _pieces(scores):
        ranks[piece] = _tie_ranks(scores[piece], None if visible is None else visible[piece], resolution, ranks.dtype)
    return ranks


def _tie_ranks(scores: Tensor, visible: Tensor | None, resolution: float, dtype: torch.dtype) -> Tensor:
    magnitude = scores if visible is None else scores.masked_fill(~visible, 0.0)
    width = resolution * torch.linalg.vector_norm(magnitude, torch.inf, dim=-1, keepdim=True)
    if visible is not None:
        # +inf puts invisible items behind all others, where they share one rank.
        scores = scores.masked_fill(~visible, torch.inf)
    order = _order(scores)
    ordered = scores.gather(-1, order)
    start = torch.zeros(scores.shape, dtype=dtype, device=scores.device)
    place = torch.arange(1, scores.shape[1], dtype=dtype, device=scores.device)
    # Neighbours only: chains of close scores are one tie, however far their ends are apart. Invisible items tie, as
    # inf - inf is NaN and not greater.
    start[:, 1:] = torch.where(ordered.diff(dim=-1) > width, place, 0)
    # The running maximum of starts is the start of each item's own tie: as many items stand below it.
    return torch.empty_like(start).scatter_(-1, order, start.cummax(-1).values)


def kendall_tau(
    x: Int[Tensor, "row item"], y: Int[Tensor, "row item"], visible: Bool[Tensor, "row item"] | None = None
) -> Float[Tensor, " row"]:
    """Kendall's tau-b of each row; NaN where either side has one value only.

    `tau_b = (C - D) / sqrt((n0 - n1) (n0 - n2))` with C concordant and D discordant of n0 pairs, of which n1 are tied
    in x and n2 in y.

    Args:
        x: ranks of the items (`tie_ranks`).
        y: other ranks of the same items.
        visible: which items count; all without.

    Returns:
        (row,), float64.

    >>> one, other = (torch.tensor([row]) for row in ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]))
    >>> kendall_tau(tie_ranks(one), tie_ranks(other))
    tensor([0.6667], dtype=torch.float64)
    """
    # A row's work is independent of the others', so pieces change nothing.
    tau = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for piece in _pieces(x):
        tau[piece] = _tau(x[piece], y[piece], None if visible is None else visible[piece])
    return tau


def _tau(x: Tensor, y: Tensor, visible: Tensor | None) -> Tensor:
    items = x.shape[1]
    count = torch.full((len(x),), items, device=x.device) if visible is None else visible.sum(-1)
    # Two ranks in one number: x in the high bits and y in the low, so that one sort orders by x and, where x ties, by
    # y.
    bits = items.bit_length()
    number, low = torch.int32 if 2 * bits < 32 else torch.int64, (1 << bits) - 1
    both = _sorted((x.to(number) << bits) | y)
    # The same with y and the place, so that ties in y keep the order of x and add no inversion.
    place = torch.arange(items, dtype=number, device=x.device)
    by_y = _sorted(((both & low) << bits) | place) & low
    # In the order of x, items are discordant that y's order turns round: the inversions of that order or of its
    # inverse.
    discordant = inversions(by_y)
    pairs = _pairs(count)
    tied_x, tied_y = _tied_pairs(x, count), _tied_pairs(y, count)
    # Every pair is concordant, discordant or tied; those tied on both sides were subtracted twice.
    concordant = pairs - tied_x - tied_y + _runs(both, count) - discordant
    # Two roots and not one of the product, which exceeds float64's exact range for long rows.
    tau = (concordant - discordant) / (pairs - tied_x).sqrt() / (pairs - tied_y).sqrt()
    return torch.where((pairs > tied_x) & (pairs > tied_y), tau, torch.nan)


def _pairs(count: Tensor) -> Tensor:
    return count.double() * (count.double() - 1) / 2


def _tied_pairs(ranks: Tensor, count: Tensor) -> Tensor:
    """Tied pairs among the `count` items of each row that count, float64."""
    # Without ties ranks would be 0, 1, 2, ...: the k-th of a tie is k below that, and ties with the k before it.
    invisible = (ranks.shape[1] - count) * count
    return _pairs(count) - (ranks.sum(-1) - invisible)


def _runs(ordered: Tensor, count: Tensor) -> Tensor:
    """Pairs of equal entries among the first `count` of each ordered row, float64."""
    place = torch.arange(ordered.shape[1], dtype=_narrow(ordered.shape[1]), device=ordered.device)
    start = place.repeat(len(ordered), 1)
    start[:, 1:].masked_fill_(ordered[:, 1:] == ordered[:, :-1], 0)
    # The k-th entry of a run ties with the k before it.
    behind = place - start.cummax(-1).values
    return behind.masked_fill_(place >= count[:, None], 0).sum(-1).double()


def inversions(permutation: Int[Tensor, "row item"]) -> Int[Tensor, " row"]:
    """Pairs that stand in descending order, in each row a permutation of 0..n-1.

    >>> inversions(torch.tensor([[2, 0, 1], [0, 1, 2]]))
    tensor([2, 0])
    """
    rows, items = permutation.shape
    # A power of two, so that shifts divide; about as many blocks hold all items.
    bits = items.bit_length() // 2
    block = 1 << bits
    blocks = -(-items // block)
    # What is added behind the items is in order and larger than all, so it inverts nothing.
    numbers = torch.arange(blocks * block, dtype=_narrow(blocks * block), device=permutation.device)
    ranks = numbers.repeat(rows, 1)
    ranks[:, :items] = permutation
    # The inverse permutation: pairs in one block of ranks are found in it as those in one block of places are here.
    places = torch.empty_like(ranks).scatter_(1, ranks.long(), numbers.expand_as(ranks))
    shape = rows, blocks, block
    within = _descending(ranks.view(shape)) + _descending((places >> bits).view(shape))
    cell = (numbers >> bits).long() * blocks + (ranks >> bits)
    table = torch.zeros(rows, blocks * blocks, dtype=torch.int32, device=ranks.device)
    table = table.scatter_add_(1, cell, torch.ones_like(ranks, dtype=torch.int32)).view(rows, blocks, blocks)
    # Items in earlier blocks of places with higher blocks of ranks: each pair of cells counts once.
    before = table.cumsum(1, dtype=torch.int32) - table
    not_above = before.cumsum(2, dtype=torch.int32)
    return within + (table * (not_above[..., -1:] - not_above)).sum((1, 2))


def _descending(blocks: Int[Tensor, "row block item"]) -> Int[Tensor, " row"]:
    """Pairs inside a block that stand in descending order, those of all blocks of a row together."""
    items = blocks.permute(2, 1, 0).contiguous()  # shifts then move whole contiguous slices
    counts = torch.zeros_like(items)
    sign = 8 * items.element_size() - 1
    found, numbers = _quick(counts), _quick(items)
    for shift in range(1, len(items)):
        # The sign of a difference alone, which is -1 where the earlier is larger: faster than to compare.
        difference = numbers[shift:] - numbers[:-shift]
        difference >>= sign
        found[:-shift] += difference
    return -counts.sum((0, 1))


def _quick(numbers: Tensor) -> Any:
    """The same memory for many short steps: on processors as NumPy's, since torch would wake its threads for each."""
    return numbers.numpy() if numbers.device.type == "cpu" else numbers


def _pieces(rows: Tensor) -> Iterator[slice]:
    step = max(1, _PIECE.get(rows.device.type, _PIECE_ELSEWHERE) // max(1, rows.shape[1]))
    return (slice(start, start + step) for start in range(0, len(rows), step))


def _narrow(items: int) -> torch.dtype:
    """The narrowest type that holds a rank; most steps take as long as there are bytes."""
    return torch.int16 if items < 1 << 15 else torch.int32


def _order(scores: Tensor) -> Tensor:
    """Places of each row's scores in ascending order, of equal ones in any."""
    # On processors NumPy's sorts, which use vector instructions, take a third to a thirtieth of torch's time.
    if scores.device.type != "cpu":
        return scores.argsort(-1)
    return torch.from_numpy(scores.detach().numpy().argsort(-1))


def _sorted(numbers: Tensor) -> Tensor:
    """Each row in ascending order, in place where that is faster."""
    if numbers.device.type != "cpu":
        return numbers.sort(-1).values
    numbers.numpy().sort(-1)
    return numbers
