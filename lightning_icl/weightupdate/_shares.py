"""How the updates of the heads divide over the demonstrations: which of them make the affine rung's, and fine-tuning's.

Both ΔW are sums over demonstrations, ΔW = Σ_i ΔW_i. In the affine rung a token j adds p_j (v_j − μ_v) (k_j − μ_k)ᵀ, and
ΔW_i is the sum over the tokens of demonstration i and its separator. Fine-tuning takes one step a demonstration, and
ΔW_i is what step i changes in the derivative of attention to zero-shot prompts, after the steps before it. The share of
demonstration i is the projection ⟨ΔW_i, ΔW⟩ / ‖ΔW‖², over all heads of a layer together: signed, and summing to 1.
Axes: H query heads, K key/value heads, P demonstration tokens, D head width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_icl.attention.heads import repeat_heads
from lightning_icl.attention.ladder import SecondOrder
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import with_overlay
from lightning_icl.models.scope import Scope
from lightning_icl.records import Demonstrations, KVOverlay, QueryBatch
from lightning_icl.weightupdate._matrices import derivatives, surveyed

TRACED = 8
"""Held-out prompts at which every step of fine-tuning is looked at, at most: of the first batch."""


def shares(parts: Float[Tensor, "example head row column"]) -> Float[Tensor, " example"]:
    """`⟨ΔW_i, ΔW⟩ / ‖ΔW‖²` of the parts ΔW_i of an update ΔW = Σ_i ΔW_i; NaN where that is zero.

    >>> shares(torch.tensor([[[[3.0, 0.0]]], [[[1.0, 0.0]]]]))
    tensor([0.7500, 0.2500])
    """
    # Over all heads of a layer together, so that shares add up to 1 there.
    whole = parts.sum(0)
    return (parts * whole).sum((1, 2, 3)) / whole.square().sum()


def affine_parts(expansion: SecondOrder, owners: Sequence[int]) -> Float[Tensor, "example head width width"]:
    """What each demonstration adds to the affine rung's matrix.

    Args:
        expansion: of one layer.
        owners: of each demonstration token the number of its demonstration.
    """
    heads, first = len(expansion.weight), expansion.first
    assert first.slope is not None
    # Centred by the means under q̄'s weights, as the covariance is.
    values = repeat_heads(expansion.value[None], heads)[0] - first.value[:, None]
    moves = repeat_heads(expansion.key[None], heads)[0] * expansion.slope.unsqueeze(-1) - first.slope[:, None]
    weighted = values * expansion.weight.unsqueeze(-1)
    numbers = torch.tensor(owners, device=values.device)
    # A loop over demonstrations: each is a slice of the same sums.
    return torch.stack([weighted[:, of].mT @ moves[:, of] for of in (numbers == n for n in range(max(owners) + 1))])


class Trace:
    """Follows fine-tuning: what each of its steps changes in the derivatives of attention to zero-shot prompts.

    Args:
        capture: an open visit to the model, with its own weights.
        demonstrations: the examples.
        held_out: the prompts about whose mean query derivatives are taken; the first few are looked at.
        scope: whose queries that mean is of.
    """

    def __init__(
        self, capture: Capture, demonstrations: Demonstrations, held_out: Sequence[QueryBatch], scope: Scope
    ) -> None:
        # A few prompts, since every step runs all of them again.
        self._demonstrations, self._prompts = demonstrations, [held_out[0].rows(0, TRACED)]
        self._survey = surveyed(capture, demonstrations, held_out, scope)
        self._before = self._now(capture)
        self._moves: list[list[Tensor]] = []

    def step(self, capture: Capture, overlay: KVOverlay) -> None:
        """Look at the weights that a step has left."""
        with with_overlay(capture.model, overlay):
            after = self._now(capture)
        # float32: a step's change is kept for every layer and head.
        self._moves.append([(new - old).float() for old, new in zip(self._before, after, strict=True)])
        self._before = after

    def shares(self) -> list[Tensor]:
        """By layer the share of each demonstration in fine-tuning's update."""
        return [shares(torch.stack(of_layer)) for of_layer in zip(*self._moves, strict=True)]

    def _now(self, capture: Capture) -> list[Tensor]:
        return derivatives(capture, self._demonstrations, self._prompts, self._survey)
