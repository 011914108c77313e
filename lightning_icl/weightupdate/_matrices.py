"""The affine rung's matrix beside fine-tuning's: both first derivatives of a softmax head's output about the same q̄.

The demonstrations' is that of attention to them. Fine-tuning's is how it moves the derivative of attention to a
zero-shot prompt, averaged over held-out prompts. Axes: H query heads, K key/value heads, D head width.
"""

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_icl.attention.ladder import HeadUpdate, second_order
from lightning_icl.dualform.matrix_similarity import likeness, matrix_cosine
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import LaidOver
from lightning_icl.weightupdate._survey import Survey

RANK = 4
"""Leading singular vectors that span the subspaces compared."""


def finetuned_matrices(
    capture: Capture, overlay: LaidOver, prompts: Sequence[Sequence[int]], survey: Survey, shift: int
) -> list[Tensor]:
    """Per layer the mean change of the derivative (H, D, D).

    Args:
        capture: an open visit to the model.
        overlay: the fine-tuned weights.
        prompts: zero-shot inputs, BOS first.
        survey: of the same prompts in context, which has q̄ and how scores come about.
        shift: where BOS stands, so that rotary embedding turns the prompt's end as it does in context.
    """
    totals: dict[int, Tensor] = {}
    for prompt in prompts:
        before = capture.prefix(prompt, shift)
        with overlay.active():
            after = capture.prefix(prompt, shift)
        assert before is not None
        assert after is not None
        for layer in survey.layers:
            matrices = [
                second_order(survey.tokens_like(layer, key, value), survey.point(layer)).first.matrix
                for key, value in ((part.keys[layer], part.values[layer]) for part in (after, before))
            ]
            assert matrices[0] is not None
            assert matrices[1] is not None
            totals[layer] = totals.get(layer, torch.zeros(())) + (matrices[0] - matrices[1]).cpu()
    return [totals[layer] / len(prompts) for layer in survey.layers]


def matrix_figures(updates: Mapping[int, HeadUpdate], finetuned: Sequence[Tensor]) -> dict[str, list[list[float]]]:
    """By figure one value for each layer and head.

    Args:
        updates: the affine rung's.
        finetuned: of each layer (H, D, D).
    """
    figures: dict[str, list[list[float]]] = {}
    for layer, other in enumerate(finetuned):
        matrix = updates[layer].matrix
        assert matrix is not None
        own = matrix.cpu().to(other)
        alike = likeness(own, other, min(RANK, own.shape[-1]))
        draw = torch.Generator().manual_seed(zlib.crc32(f"matrix/{layer}".encode()))
        values = {
            "cosine": alike.cosine,
            "cosine_of_gaussian": matrix_cosine(own, torch.randn(own.shape, generator=draw).to(own)),
            "norm_ratio": alike.norm_ratio,
            "left_overlap": alike.left.square().mean(-1),
            "right_overlap": alike.right.square().mean(-1),
            "icl_rank": alike.one_rank,
            "ft_rank": alike.other_rank,
        }
        for name, of_heads in values.items():
            figures.setdefault(name, []).append(of_heads.tolist())
    return figures
