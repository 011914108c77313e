"""One layer under three conditions, as the dual form sees it: from captured heads to the figures of each query.

Axes: B queries, H query heads, K key/value heads, T own tokens, P prefix tokens, D head width.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_icl.attention.precision import at_least_float32
from lightning_icl.dualform._capture import LayerView
from lightning_icl.dualform._implicit_patch import compare_patches
from lightning_icl.dualform._outer_products import (
    TokenSums,
    apply_matrix,
    demonstration_shares,
    finetuning_update,
    first_order_attention,
    linear_attention,
    token_sums,
)
from lightning_icl.dualform.matrix_similarity import likeness, matrix_cosine
from lightning_icl.metrics.similarity import Resolution, cosine, update_of

# Queries of a batch are taken in pieces whose matrices stay below this many numbers (64 MB in float32).
_MATRIX_NUMBERS = 1 << 24


@dataclass(frozen=True, kw_only=True)
class LayerPrefix:
    """The prefixes of one layer; the demonstrations' tokens with their separators, BOS apart."""

    demonstration_key: Tensor
    """(1, K, P, D)"""
    demonstration_value: Tensor
    """(1, K, P, D)"""
    example: Tensor
    """(P): number of the demonstration that each token belongs to."""
    bos: tuple[Tensor, Tensor]
    """Key and value of BOS before the demonstrations, (1, K, BOS, D) each."""
    zsl_bos: tuple[Tensor, Tensor]
    """The same of the zero-shot input."""
    ft_bos: tuple[Tensor, Tensor]
    """The same of the zero-shot input, fine-tuned."""


@dataclass(frozen=True, kw_only=True)
class LayerTrio:
    """One layer's view of some queries: zero-shot, in-context, fine-tuned."""

    zsl: LayerView
    icl: LayerView
    ft: LayerView
    probe_index: Tensor
    """(B): the probe token among the own tokens; what lies behind it is padding or an answer."""
    prefix: LayerPrefix

    def pieces(self) -> Iterator["LayerTrio"]:
        """The queries in pieces small enough for their matrices, tensors in float32 or better."""
        kv_heads, width = self.icl.key.shape[1], self.icl.key.shape[3]
        # A (D, D) matrix for each query and key/value head is what memory must hold.
        step = max(1, _MATRIX_NUMBERS // (kv_heads * width * width))
        for start in range(0, len(self.probe_index), step):
            rows = slice(start, start + step)
            yield replace(
                self,
                zsl=_some(self.zsl, rows),
                icl=_some(self.icl, rows),
                ft=_some(self.ft, rows),
                probe_index=self.probe_index[rows],
            )

    @cached_property
    def prefix_visible(self) -> Tensor | None:
        """(B, P): demonstration tokens within the window; None where all are."""
        if self.icl.window is None:
            return None
        tokens = torch.arange(self.between, device=self.probe_index.device)
        # Positions of the query count on from the demonstrations.
        return self.probe_index[:, None] + self.between - tokens < self.icl.window

    @property
    def between(self) -> int:
        """Demonstration tokens between BOS and the query in context."""
        return self.prefix.demonstration_key.shape[2]

    def own(self, view: LayerView, bos: tuple[Tensor, Tensor], between: int) -> tuple[Tensor, Tensor, Tensor]:
        """BOS and own tokens: keys and values (B, K, BOS + T, D), and which the probe token sees (B, BOS + T)."""
        key, value = (
            # Expanded for concatenation only; BOS is the same for every query.
            torch.cat([shared.to(own).expand(len(own), -1, -1, -1), own], 2)
            for shared, own in zip(bos, (view.key, view.value), strict=True)
        )
        first = bos[0].shape[2]
        # BOS tokens have negative places, before the query's own.
        place = torch.arange(key.shape[2], device=key.device) - first
        # In context the demonstrations lie between BOS and the query, which a window counts too.
        distance = self.probe_index[:, None] - place + between * (place < 0)
        visible = place <= self.probe_index[:, None]
        return key, value, visible if view.window is None else visible & (distance < view.window)


def _some(view: LayerView, rows: slice) -> LayerView:
    """Some queries of a view, in float32 or better."""
    cut: dict[str, Any] = {}
    for field in fields(view):
        value = getattr(view, field.name)
        if isinstance(value, Tensor):
            # Matrices are sums over tokens: bfloat16 would lose digits at every step.
            cut[field.name] = at_least_float32(value[rows])
    return replace(view, **cut)


def layer_figures(trio: LayerTrio, rank: int) -> dict[str, Tensor]:
    """The figures of attention, by name, (query, head) or (query, key/value head) each.

    Args:
        trio: the layer under three conditions.
        rank: dimension of the subspaces whose principal angles are taken.
    """
    # The demonstrations' sums do not depend on the query unless a window cuts them.
    sums = token_sums(trio.prefix.demonstration_key, trio.prefix.demonstration_value, trio.prefix_visible)
    icl_own = trio.own(trio.icl, trio.prefix.bos, trio.between)
    zsl_key, zsl_value, visible = trio.own(trio.zsl, trio.prefix.zsl_bos, 0)
    ft_key, ft_value, _ = trio.own(trio.ft, trio.prefix.ft_bos, 0)
    # Own tokens of the zero-shot input: fine-tuning changes what each of them writes.
    ft_update = finetuning_update(zsl_key, zsl_value, ft_key, ft_value, visible)
    w_zsl = token_sums(zsl_key, zsl_value, visible).outer
    w_own = token_sums(*icl_own)
    return {
        **_against_softmax(trio, sums, w_own, icl_own),
        **_updates(sums.outer, ft_update, trio.icl.query, rank),
        "zsl_icl_cosine": matrix_cosine(w_zsl, sums.outer),
        "zsl_ft_cosine": matrix_cosine(w_zsl, ft_update),
        "own_drift": torch.linalg.matrix_norm(w_own.outer - w_zsl) / torch.linalg.matrix_norm(w_zsl),
    }


def _against_softmax(
    trio: LayerTrio, demonstrations: TokenSums, own: TokenSums, own_tokens: tuple[Tensor, Tensor, Tensor]
) -> dict[str, Tensor]:
    """The identity of the two linear forms, and how far softmax attention is from them."""
    query, output, scaling = trio.icl.query, trio.icl.output, trio.icl.scaling
    both = own + demonstrations
    by_matrix = apply_matrix(both.outer, query)
    key, value, visible = own_tokens
    # Computed from scores, with no matrix: the two sides of the identity share no intermediate.
    by_scores = linear_attention(query, key, value, visible=visible) + linear_attention(
        query, trio.prefix.demonstration_key, trio.prefix.demonstration_value, visible=trio.prefix_visible
    )
    resolution = Resolution.of(torch.finfo(output.dtype).eps, rotated=True)
    update = update_of(output, trio.zsl.output, resolution.icl)
    # The scale is left out of the matrix, as the paper has it, and comes in where softmax is compared.
    linear, first_order = scaling * by_matrix, first_order_attention(query, both, scaling=scaling)
    return {
        "identity_error": relative_error(by_matrix, by_scores),
        "linear_error": relative_error(linear, output),
        "linear_error_without_scale": relative_error(by_matrix, output),
        "linear_cosine": cosine(linear, output),
        "first_order_error": relative_error(first_order, output),
        "first_order_cosine": cosine(first_order, output),
        "update_cosine": cosine(apply_matrix(demonstrations.outer, query), update.vector).masked_fill(
            update.zero, torch.nan
        ),
    }


def _updates(icl: Tensor, ft: Tensor, query: Tensor, rank: int) -> dict[str, Tensor]:
    """ΔW_ICL (1 or B, K, D, D) beside ΔW_FT (B, K, D, D)."""
    alike = likeness(icl, ft, rank)
    return {
        "effect_cosine": cosine(apply_matrix(icl, query), apply_matrix(ft, query)),
        "cosine": alike.cosine,
        "norm_ratio": alike.norm_ratio,
        "left_angles": alike.left.arccos().rad2deg(),
        "right_angles": alike.right.arccos().rad2deg(),
        "left_overlap": alike.left.square().mean(-1),
        "right_overlap": alike.right.square().mean(-1),
        "icl_rank": alike.one_rank,
        "ft_rank": alike.other_rank,
    }


def share_figures(trio: LayerTrio) -> dict[str, Tensor]:
    """Each demonstration's share in ΔW_ICL, (query or 1, K, demonstration), and the part of the tokens in reach."""
    prefix, visible = trio.prefix, trio.prefix_visible
    shares = demonstration_shares(prefix.demonstration_key, prefix.demonstration_value, prefix.example, visible)
    # Without a window everything is in reach, for all queries alike.
    reach = prefix.example.new_ones(1) if visible is None else visible.float().mean(1)
    return {"share_projection": shares.projection, "share_norm": shares.norm, "visible": reach}


def patch_figures(trio: LayerTrio, weight: Tensor, before: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
    """The implicit patch of the MLP's first matrix against the one that fine-tuning induces.

    Args:
        trio: the layer under three conditions.
        weight: (hidden, E), the MLP's first matrix.
        before: (1, E), how fine-tuning moved the MLP's input of the query before these; None for the first.

    Returns:
        The figures by name, (query) each, and how fine-tuning moved the input of the last query.
    """
    zsl, icl, ft = (at_least_float32(view.mlp_input) for view in (trio.zsl, trio.icl, trio.ft))
    moved = ft - zsl
    # A control needs another query: the one before, across batches.
    others = torch.cat([torch.full_like(moved[:1], torch.nan) if before is None else before, moved[:-1]])
    patches = compare_patches(weight.to(zsl), zsl, icl, ft, others)
    figures = {
        "patch_identity_error": patches.identity_error,
        "patch_icl_size": patches.icl_size,
        "patch_ft_size": patches.ft_size,
        "patch_cosine": patches.cosine,
        "patch_other_cosine": patches.other_cosine,
    }
    return figures, moved[-1:]


def relative_error(approximate: Tensor, exact: Tensor) -> Tensor:
    """`‖approximate − exact‖ / ‖exact‖` over the last axis."""
    norm = torch.linalg.vector_norm
    return norm(approximate - exact, dim=-1) / norm(exact, dim=-1)
