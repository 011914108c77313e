"""The dual form: a head without softmax is a matrix, and every token of the prompt adds one outer product to it.

Linear attention of a query q over tokens with values v_j and keys k_j is `Σ_j v_j (k_j · q) = (Σ_j v_j ⊗ k_j) q`, so
that demonstrations act as an update of the matrix that the query's own tokens make (Irie et al. 2022, arXiv 2202.05798;
Dai et al. 2023, section 3): `F(q) = (W_ZSL + ΔW_ICL) q`. Keys and queries are those that attention multiplies, after
rotary embedding; soft caps and ALiBi's bias are no part of a linear form. Axes: B batch, H query heads, K key/value
heads, T tokens, D head width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_icl.attention.heads import repeat_heads


@dataclass(frozen=True, kw_only=True)
class TokenSums:
    """What a set of tokens leaves in a linear head; sums of disjoint sets add up."""

    outer: Float[Tensor, "batch kv_head width width"]
    """W = Σ_j v_j ⊗ k_j, value rows and key columns: the head is `W q`."""
    key: Float[Tensor, "batch kv_head width"]
    """Σ_j k_j."""
    value: Float[Tensor, "batch kv_head width"]
    """Σ_j v_j."""
    count: Float[Tensor, "batch 1"]
    """How many tokens there are."""

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return TokenSums(
            outer=self.outer + other.outer,
            key=self.key + other.key,
            value=self.value + other.value,
            count=self.count + other.count,
        )


def token_sums(
    key: Float[Tensor, "batch kv_head token width"],
    value: Float[Tensor, "batch kv_head token width"],
    visible: Bool[Tensor, "rows token"] | None = None,
) -> TokenSums:
    """The sums over the tokens of each row.

    Args:
        key: after rotary embedding.
        value: values of the same tokens.
        visible: which tokens count, for each row, or for each of several rows that share one set (batch 1); None
            where all do.

    Returns:
        Sums with one row for each row of `key` or of `visible`, whichever has more.
    """
    # Masked values suffice for the outer products; keys must be masked too where they are summed alone.
    if visible is not None:
        value = value * visible[:, None, :, None]
    count = torch.full_like(key[:, 0, :1, 0], key.shape[2]) if visible is None else visible.sum(1, True).to(key)
    masked = key if visible is None else key * visible[:, None, :, None]
    return TokenSums(outer=value.mT @ key, key=masked.sum(2), value=value.sum(2), count=count)


def apply_matrix(
    matrix: Float[Tensor, "#batch kv_head width width"], query: Float[Tensor, "#batch head width"]
) -> Float[Tensor, "batch head width"]:
    """`W q` for every query head, each group of heads with the matrix of its key/value head."""
    # Heads of a group multiply one matrix, so they become its rows.
    grouped = query.unflatten(1, (matrix.shape[1], -1))
    return (grouped @ matrix.mT).flatten(1, 2)


def linear_attention(
    query: Float[Tensor, "batch head width"],
    key: Float[Tensor, "#batch kv_head token width"],
    value: Float[Tensor, "#batch kv_head token width"],
    *,
    scaling: float = 1.0,
    visible: Bool[Tensor, "#batch token"] | None = None,
) -> Float[Tensor, "batch head width"]:
    """`Σ_j v_j (k_j · q)` by its scores, no matrix W being made: the other side of the identity.

    Args:
        query: one query vector a row, after rotary embedding.
        key: after rotary embedding.
        value: values of the same tokens.
        scaling: factor on the scores; 1 for the paper's form without scale.
        visible: which tokens count; None where all do.

    >>> one = torch.ones(1, 1, 1)
    >>> linear_attention(2 * one, torch.tensor([[[[1.0], [3.0]]]]), torch.tensor([[[[1.0], [10.0]]]]))
    tensor([[[62.]]])
    """
    heads = query.shape[1]
    scores = torch.einsum("bhd,bhtd->bht", query, repeat_heads(key, heads)) * scaling
    if visible is not None:
        # Multiplied by 0 and not -inf: there is no softmax here.
        scores = scores * visible[:, None]
    return torch.einsum("bht,bhtd->bhd", scores, repeat_heads(value, heads))


def first_order_attention(
    query: Float[Tensor, "batch head width"], sums: TokenSums, *, scaling: float
) -> Float[Tensor, "batch head width"]:
    """Softmax attention to first order in its scores: the mean value plus the covariance of values and keys at work.

    With n tokens and scores s_j, `softmax(s)_j = (1 + s_j − s̄) / n + O(s²)`, hence the output is
    `v̄ + scaling · (W / n − v̄ ⊗ k̄) q`. It is the best that a linear form of small scores can do; plain linear attention
    lacks the 1/n and the centring.
    """
    # One axis for the width; the outer product below needs one more.
    count = sums.count[..., None]
    mean_key, mean_value = sums.key / count, sums.value / count
    covariance = sums.outer / count[..., None] - mean_value[..., :, None] * mean_key[..., None, :]
    return repeat_heads(mean_value[:, :, None], query.shape[1])[:, :, 0] + scaling * apply_matrix(covariance, query)


def finetuning_update(
    key: Float[Tensor, "batch kv_head token width"],
    value: Float[Tensor, "batch kv_head token width"],
    tuned_key: Float[Tensor, "batch kv_head token width"],
    tuned_value: Float[Tensor, "batch kv_head token width"],
    visible: Bool[Tensor, "batch token"] | None = None,
) -> Float[Tensor, "batch kv_head width width"]:
    """ΔW_FT = Σ_j v'_j ⊗ k'_j − Σ_j v_j ⊗ k_j over the tokens of a zero-shot input (definitions, section 6).

    With v' = (W_V + ΔW_V) x and k' = (W_K + ΔW_K) x this is the paper's relaxed form. It is summed as
    `Δv ⊗ k' + v ⊗ Δk`, because an update of one part in a million would drown in the difference of the two sums.

    Args:
        key, value: zero-shot.
        tuned_key, tuned_value: of the same tokens, fine-tuned.
        visible: which tokens count; None where all do.
    """
    moved_value, moved_key = tuned_value - value, tuned_key - key
    if visible is not None:
        mask = visible[:, None, :, None]
        moved_value, moved_key = moved_value * mask, moved_key * mask
    return moved_value.mT @ tuned_key + value.mT @ moved_key


class Shares(NamedTuple):
    """Each demonstration's part in ΔW_ICL = Σ_i ΔW_i; NaN where no token is in reach."""

    projection: Float[Tensor, "batch kv_head example"]
    """`⟨ΔW_i, ΔW⟩ / ‖ΔW‖²`: signed, and summing to 1 over the demonstrations."""
    norm: Float[Tensor, "batch kv_head example"]
    """`‖ΔW_i‖ / ‖ΔW‖`, Frobenius: how large, whatever its direction."""


def demonstration_shares(
    key: Float[Tensor, "1 kv_head token width"],
    value: Float[Tensor, "1 kv_head token width"],
    example: Int[Tensor, "token"],
    visible: Bool[Tensor, "batch token"] | None = None,
) -> Shares:
    """How much of the update each demonstration makes.

    Args:
        key: of the demonstration tokens, after rotary embedding.
        value: of the same tokens.
        example: number of the demonstration that each token belongs to, 0, 1, 2, ….
        visible: which tokens are in reach of each query; None where all are.
    """
    whole = token_sums(key, value, visible).outer
    square = whole.square().sum((-2, -1))
    projections, norms = [], []
    for number in range(int(example.max()) + 1):
        of_it = example == number
        # A window cuts a demonstration for some queries and not for others.
        seen = None if visible is None else visible[:, of_it]
        part = token_sums(key[:, :, of_it], value[:, :, of_it], seen).outer
        # Projections sum to 1 because the parts sum to the whole.
        projections.append((part * whole).sum((-2, -1)) / square)
        norms.append((part.square().sum((-2, -1)) / square).sqrt())
    return Shares(projection=torch.stack(projections, -1), norm=torch.stack(norms, -1))
