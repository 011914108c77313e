"""Demonstrations as an update of each head: attention to them, replaced by ever simpler functions of the query.

Softmax attention joins the query's own tokens and the demonstrations by two sums, Z(q) and N(q) (definitions, section
8). A rung of the ladder puts a function in their place that was built once, about an expansion point q̄. The attention
output N/Z of the demonstrations is the mean of their values under weights p_i ∝ exp g_i(q), with g_i the score of token
i; its derivatives and those of log Z are cumulants of values and scores under p(q̄). Axes: B batch, H query heads, K
key/value heads, T own tokens, P demonstration tokens, D head width.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_icl.attention.heads import repeat_heads
from lightning_icl.attention.precision import at_least_float32
from lightning_icl.attention.prefix import join_attention, prefix_attention

# Rows are taken in pieces that keep their numbers for all demonstration tokens below this many: few enough for a
# processor's cache, many enough to fill a GPU.
_PIECE = {"cpu": 1 << 20}
_PIECE_ELSEWHERE = 1 << 24


@runtime_checkable
class PrefixUpdate(Protocol):
    """What a head makes of the demonstrations, given the attention to everything else."""

    def join(self, query: Tensor, own: Tensor, own_lse: Tensor) -> Tensor:
        """(B, H, T, D) attention output.

        Args:
            query: (B, H, T, D), as attention multiplies it.
            own: (B, H, T, D) output of attention to own tokens and BOS.
            own_lse: (B, H, T) log-sum-exp of their scores.
        """


@dataclass(frozen=True, kw_only=True)
class SharedTokens:
    """Tokens that every query sees, in one layer, and how a query's scores with them come about."""

    key: Float[Tensor, "1 kv_head prefix width"]
    """After rotary embedding."""
    value: Float[Tensor, "1 kv_head prefix width"]
    scaling: float
    """Factor on the scores."""
    softcap: float | None = None
    """Scores become `softcap * tanh(scores / softcap)`."""
    bias: Float[Tensor, "head prefix"] | None = None
    """Added to the scores of each head (ALiBi)."""

    def part(self, start: int, stop: int | None = None) -> "SharedTokens":
        """Those from one token to before another."""
        bias = None if self.bias is None else self.bias[:, start:stop]
        return replace(self, key=self.key[:, :, start:stop], value=self.value[:, :, start:stop], bias=bias)

    def attend(
        self,
        query: Float[Tensor, "batch head token width"],
        window: int | None = None,
        positions: Int[Tensor, "batch token"] | None = None,
        span: range | None = None,
    ) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head token"]]:
        """Softmax attention to them, N / Z, and log Z; `window`, `positions` and `span` as in `prefix_attention`."""
        return prefix_attention(
            query,
            self.key,
            self.value,
            scaling=self.scaling,
            softcap=self.softcap,
            window=window,
            positions=positions,
            span=span,
            bias=self.bias,
        )

    def linear(self) -> Float[Tensor, "kv_head width width"]:
        """ΔW = Σ_i v_i ⊗ k_i, the update of the paper's relaxed form, without softmax and scale."""
        return at_least_float32(self.value[0]).mT @ at_least_float32(self.key[0])


class Expansion(ABC):
    """Attention to the demonstrations or an expansion of it: an output and a mass, joined as attention to tokens is."""

    @abstractmethod
    def attend(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """N / Z (B, H, T, D) and log Z (B, H, T) of the demonstrations, for queries (B, H, T, D)."""

    def join(
        self,
        query: Float[Tensor, "batch head token width"],
        own: Float[Tensor, "batch head token width"],
        own_lse: Float[Tensor, "batch head token"],
    ) -> Float[Tensor, "batch head token width"]:
        """Attention to own tokens and the update together; see `PrefixUpdate`."""
        return join_attention(own, own_lse, *self.attend(query))


@dataclass(frozen=True, kw_only=True)
class HeadUpdate(Expansion):
    """A head's update by the demonstrations: a vector, a matrix on the query, and a mass that says how much they count.

    At `point` q̄ it is what softmax attention to the demonstrations gives.
    """

    point: Float[Tensor, "head width"]
    """The expansion point q̄."""
    log_mass: Float[Tensor, "head"]
    """log Z(q̄)."""
    value: Float[Tensor, "head width"]
    """N(q̄) / Z(q̄), the mean of the demonstrations' values under attention from q̄."""
    slope: Float[Tensor, "head width"] | None
    """Gradient of log Z at q̄; None where the mass is constant."""
    matrix: Float[Tensor, "head width width"] | None
    """Jacobian of N / Z at q̄, value rows and query columns; None where it is left out."""

    @property
    def jacobian(self) -> Float[Tensor, "head width width"]:
        """The matrix of an update that has one."""
        assert self.matrix is not None
        return self.matrix

    def attend(
        self, query: Float[Tensor, "batch head token width"]
    ) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head token"]]:
        """N / Z and log Z of the demonstrations, as this rung has them."""
        # Displacement of each query from q̄, in the update's own type so that a bfloat16 query loses no more digits.
        moved = query.to(self.value) - self.point[:, None]
        out, lse = self.value[:, None].expand_as(moved), self.log_mass[:, None].expand(moved.shape[:-1])
        if self.slope is not None:
            lse = lse + torch.einsum("bhtd,hd->bht", moved, self.slope)
        if self.matrix is not None:
            out = out + moved @ self.matrix.mT
        return out.to(query.dtype), lse


@dataclass(frozen=True, kw_only=True)
class SecondOrder(Expansion):
    """The expansion of N / Z and log Z to second order, which needs the demonstrations' tokens.

    Its tensor of third cumulants has the cube of the head width as many numbers, so it is summed over tokens instead.
    """

    first: HeadUpdate
    """The expansion to first order."""
    weight: Float[Tensor, "head prefix"]
    """p_i, the attention from q̄."""
    key: Float[Tensor, "kv_head prefix width"]
    """Scaled keys: a score moves by `key · δ` before any soft cap."""
    value: Float[Tensor, "kv_head prefix width"]
    slope: Float[Tensor, "head prefix"]
    """First derivative of the soft cap at each token's score; 1 without."""
    curvature: Float[Tensor, "head prefix"] | None
    """Second derivative of the soft cap at each token's score; None without."""

    def attend(
        self, query: Float[Tensor, "batch head token width"]
    ) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head token"]]:
        """N / Z and log Z of the demonstrations to second order."""
        out, lse = self.first.attend(query.to(self.value))
        moved = query.to(self.value) - self.first.point[:, None]
        # Batch and tokens are one row: every head then has a single product with its demonstrations.
        rows = moved.transpose(0, 1).flatten(1, 2)
        keys, values = (repeat_heads(tokens[None], len(rows))[0] for tokens in (self.key, self.value))
        centred = self._centred(keys)
        # Rows are independent of each other, so the pieces are exact.
        most = _PIECE.get(rows.device.type, _PIECE_ELSEWHERE)
        pieces = rows.split(max(1, most // self.weight.numel()), dim=1)
        parts = [self._square_sums(piece, centred, keys, values) for piece in pieces]
        bend, total = (
            torch.cat(part, dim=1).unflatten(1, (query.shape[0], -1)).transpose(0, 1)
            for part in zip(*parts, strict=True)
        )
        return (out + bend / 2).to(query.dtype), lse + total / 2

    def _centred(self, keys: Tensor) -> Tensor:
        """By how much a displacement moves each token's score beyond the mean, times the root of the token's weight."""
        assert self.first.slope is not None
        # The soft cap is a function of the score: its slope scales the score's first-order move.
        moves = keys * self.slope.unsqueeze(-1) - self.first.slope[:, None]
        return moves * self.weight.sqrt().unsqueeze(-1)

    def _square_sums(
        self, rows: Float[Tensor, "head row width"], centred: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Float[Tensor, "head row width"], Float[Tensor, "head row"]]:
        """The third cumulant of value, score and score, and the variance of the score."""
        square = (rows @ centred.mT).square_()
        if self.curvature is not None:
            # The soft cap's curvature adds a second-order move, even to a score that moves linearly with the query: to
            # the cumulant the covariance of value and curvature, to the variance its mean.
            square += (self.weight * self.curvature)[:, None] * (rows @ keys.mT).square_()
        total = square.sum(-1)
        return square @ values - total.unsqueeze(-1) * self.first.value[:, None], total


@dataclass(frozen=True, kw_only=True)
class Linear:
    """The paper's relaxed form: the update ΔW q is added to attention to the own tokens, with a factor a head."""

    matrix: Float[Tensor, "kv_head width width"]
    """ΔW = Σ_i v_i ⊗ k_i."""
    factor: Float[Tensor, "head"]
    """β; 1 is the paper's form, without scale."""

    def join(
        self,
        query: Float[Tensor, "batch head token width"],
        own: Float[Tensor, "batch head token width"],
        own_lse: Float[Tensor, "batch head token"],
    ) -> Float[Tensor, "batch head token width"]:
        """Own attention plus β ΔW q; see `PrefixUpdate`."""
        # Added to the output and not to the mass: the relaxed form has no normalisation to share.
        moved = linear_update(self.matrix, query)
        return own + (self.factor[:, None, None] * moved).to(own.dtype)


@dataclass(frozen=True, kw_only=True)
class Softmax(Expansion):
    """The top of the ladder: the demonstrations are attended to."""

    demonstrations: SharedTokens

    def attend(
        self, query: Float[Tensor, "batch head token width"]
    ) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head token"]]:
        """N / Z and log Z of the demonstrations, as attention has them."""
        return self.demonstrations.attend(query)


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """The bottom of the ladder: the demonstrations are not attended to."""

    def join(
        self,
        query: Float[Tensor, "batch head token width"],
        own: Float[Tensor, "batch head token width"],
        own_lse: Float[Tensor, "batch head token"],
    ) -> Float[Tensor, "batch head token width"]:
        """Own attention as it is."""
        return own


def linear_update(
    matrix: Float[Tensor, "kv_head width width"], query: Float[Tensor, "batch head token width"]
) -> Float[Tensor, "batch head token width"]:
    """ΔW q of every query head, with the matrix of its key/value head."""
    return query.to(matrix) @ repeat_heads(matrix[None], query.shape[1]).mT


def climb(
    demonstrations: SharedTokens, point: Float[Tensor, "head width"], factor: Float[Tensor, "head"]
) -> dict[str, PrefixUpdate]:
    """Every rung from nothing to softmax attention, the crudest first.

    Args:
        demonstrations: of one layer.
        point: q̄ of each query head.
        factor: β of each query head, for the linear rung.
    """
    # Each rung is the one above it with a term left out, so the expansion is computed once.
    whole, matrix = second_order(demonstrations, point), demonstrations.linear()
    return {
        "none": Nothing(),
        "linear-raw": Linear(matrix=matrix, factor=torch.ones_like(factor)),
        "linear": Linear(matrix=matrix, factor=factor.to(matrix)),
        "constant": replace(whole.first, slope=None, matrix=None),
        "constant-mass": replace(whole.first, matrix=None),
        "affine": whole.first,
        "quadratic": whole,
        "softmax": Softmax(demonstrations=demonstrations),
    }


def second_order(demonstrations: SharedTokens, point: Float[Tensor, "head width"]) -> SecondOrder:
    """The demonstrations' attention expanded about q̄, computed in float64 and kept in float32 or better.

    Args:
        demonstrations: their keys and values in one layer.
        point: q̄ of each query head.
    """
    # The scale goes into the keys once, so that scores and their derivatives need no factor.
    key, value = demonstrations.key.double() * demonstrations.scaling, demonstrations.value.double()
    seen = _moments(key, value, point.double(), demonstrations.softcap, demonstrations.bias)

    def stored(numbers: Tensor) -> Tensor:
        # Moments of centred products cancel, hence float64 above; the finished numbers need no more than the model.
        return numbers.to(torch.promote_types(demonstrations.key.dtype, torch.float32))

    return SecondOrder(
        first=HeadUpdate(
            point=stored(point),
            log_mass=stored(seen.scores[0].logsumexp(-1)),
            value=stored(seen.value[0]),
            slope=stored(seen.move[0]),
            matrix=stored(seen.covariance[0]),
        ),
        weight=stored(seen.weight[0]),
        key=stored(key[0]),
        value=stored(value[0]),
        slope=stored(seen.slope[0]),
        curvature=None if demonstrations.softcap is None else stored(seen.curvature[0]),
    )


def jacobians(
    key: Float[Tensor, "batch kv_head prefix width"],
    value: Float[Tensor, "batch kv_head prefix width"],
    point: Float[Tensor, "head width"],
    *,
    scaling: float,
    softcap: float | None,
    bias: Float[Tensor, "head prefix"] | None,
    visible: Bool[Tensor, "batch prefix"],
) -> Float[Tensor, "batch head width width"]:
    """Jacobians of N / Z at q̄ of several sequences that each attend to tokens of their own, in float64.

    Args:
        key: after rotary embedding.
        value: of the same tokens.
        point: q̄ of each query head.
        scaling, softcap, bias: how scores come about, as of `SharedTokens`.
        visible: which tokens there are; the others are padding.
    """
    return _moments(key.double() * scaling, value.double(), point.double(), softcap, bias, visible).covariance


class _Moments(NamedTuple):
    """What attention from q̄ makes of values and of the moves of scores; of `batch` sequences."""

    scores: Float[Tensor, "batch head prefix"]
    weight: Float[Tensor, "batch head prefix"]
    slope: Float[Tensor, "batch head prefix"]
    """First derivative of the soft cap."""
    curvature: Float[Tensor, "batch head prefix"]
    """Second derivative of the soft cap."""
    value: Float[Tensor, "batch head width"]
    """Mean value, N / Z."""
    move: Float[Tensor, "batch head width"]
    """Mean gradient of a score, which is the gradient of log Z."""
    covariance: Float[Tensor, "batch head width width"]
    """Of values and gradients: the Jacobian of N / Z, a softmax mean."""


def _moments(
    key: Tensor, value: Tensor, point: Tensor, cap: float | None, bias: Tensor | None, visible: Tensor | None = None
) -> _Moments:
    keys, values = repeat_heads(key, len(point)), repeat_heads(value, len(point))
    scores = torch.einsum("bhpd,hd->bhp", keys, point)
    slope, curvature = torch.ones_like(scores), torch.zeros_like(scores)
    if cap is not None:
        # Soft cap c tanh(s / c): its slope is 1 - tanh², its curvature -2/c tanh (1 - tanh²).
        bent = torch.tanh(scores / cap)
        scores, slope = cap * bent, 1 - bent.square()
        curvature = -2 * bent * slope / cap
    if bias is not None:
        scores = scores + bias.double()
    if visible is not None:
        scores = scores.masked_fill(~visible[:, None], -torch.inf)
    weight = scores.softmax(-1)
    mean_value = torch.einsum("bhp,bhpd->bhd", weight, values)
    moves = keys * slope.unsqueeze(-1)
    mean_move = torch.einsum("bhp,bhpd->bhd", weight, moves)
    covariance = (values - mean_value[:, :, None]).mT @ ((moves - mean_move[:, :, None]) * weight.unsqueeze(-1))
    return _Moments(scores, weight, slope, curvature, mean_value, mean_move, covariance)
