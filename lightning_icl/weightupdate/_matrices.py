"""The affine rung's matrix beside fine-tuning's: both first derivatives of a softmax head's output about the same q̄.

The demonstrations' is that of attention to them. Fine-tuning's is how it moves the derivative of attention to a
zero-shot prompt, averaged over held-out prompts. Axes: H query heads, K key/value heads, D head width.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_icl.dualform.matrix_similarity import likeness, matrix_cosine
from lightning_icl.models.capture import Capture
from lightning_icl.models.forward_pass import LayerAttention
from lightning_icl.models.kv import with_overlay
from lightning_icl.models.scope import Scope
from lightning_icl.probing.contrast import Contrast
from lightning_icl.records import Condition, Demonstrations, QueryBatch
from lightning_icl.weightupdate.survey import Survey

RANK = 4
"""Leading singular vectors that span the subspaces compared."""
HeadFigures = dict[str, list[list[float]]]
"""By figure one value for each layer and head."""


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """Both updates of every head, by layer (H, D, D), on the CPU."""

    icl: Sequence[Tensor]
    """The affine rung's."""
    ft: Sequence[Tensor]
    """Fine-tuning's."""

    @classmethod
    def of(cls, capture: Capture, contrast: Contrast, held_out: Sequence[QueryBatch], scope: Scope) -> "Matrices":
        """Those of a control, made as the main ones are: about its own q̄, from its own prompt and its own weights.

        Args:
            capture: an open visit to the model.
            contrast: demonstrations in the prompt and learnt, under weights of its own where it has some.
            held_out: the prompts.
            scope: whose queries q̄ is the mean of.
        """
        demonstrations = contrast.demonstrations
        # A control may have a model of its own, laid over this one.
        with with_overlay(capture.model, contrast.icl.overlay):
            survey = surveyed(capture, demonstrations, held_out, scope)
        return cls.about(survey, capture, contrast, held_out)

    @classmethod
    def about(cls, survey: Survey, capture: Capture, contrast: Contrast, held_out: Sequence[QueryBatch]) -> "Matrices":
        """Those about a survey's q̄.

        Args:
            survey: of the contrast's prompt.
            capture: an open visit to the model.
            contrast: its zero-shot and fine-tuned weights are compared.
            held_out: the prompts.
        """

        # Each side under its own weights: an untrained control's zero-shot is untrained too.
        def under(condition: Condition) -> list[Tensor]:
            with with_overlay(capture.model, condition.overlay):
                return derivatives(capture, contrast.demonstrations, held_out, survey)

        # What fine-tuning does to a head is the change of its derivative.
        moved = [after - before for before, after in zip(under(contrast.zsl), under(contrast.ft), strict=True)]
        return cls(icl=[survey.expansion(layer).first.jacobian.cpu() for layer in survey.layers], ft=moved)

    def figures(self) -> HeadFigures:
        """How alike the two are."""
        figures: HeadFigures = {}
        for layer, (own, other) in enumerate(zip(self.icl, self.ft, strict=True)):
            # The two are made on different devices where the model is spread.
            own = own.to(other)
            alike = likeness(own, other, min(RANK, own.shape[-1]))
            # By layer, so that a run's baseline does not depend on how many layers come before.
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

    def beside(self, main: "Matrices") -> HeadFigures:
        """A control's figures, and the cosines of its two updates with the main ones."""
        pairs = {"cosine_with_icl": (self.icl, main.icl), "cosine_with_ft": (self.ft, main.ft)}
        with_main = {
            name: [matrix_cosine(own.to(other), other).tolist() for own, other in zip(one, two, strict=True)]
            for name, (one, two) in pairs.items()
        }
        return self.figures() | with_main


def surveyed(capture: Capture, demonstrations: Demonstrations, held_out: Sequence[QueryBatch], scope: Scope) -> Survey:
    """The held-out prompts behind demonstrations, under the weights now in the model."""
    prefix = capture.prefix(demonstrations.prefix_token_ids)
    assert prefix is not None
    return Survey(len(prefix.keys), len(demonstrations.bos), scope).of(capture, prefix, held_out)


def derivatives(
    capture: Capture, demonstrations: Demonstrations, batches: Sequence[QueryBatch], survey: Survey
) -> list[Tensor]:
    """By layer the mean derivative of attention to zero-shot prompts (H, D, D), under the weights now in the model.

    Args:
        capture: an open visit to the model.
        demonstrations: have BOS, and say how far the prompts stand from it in context.
        batches: the prompts.
        survey: has q̄, and how scores come about.
    """
    shift = capture.architecture.zero_shot_shift(demonstrations)
    bos = capture.prefix(demonstrations.bos, shift)
    # float64: derivatives of many prompts cancel in the mean.
    totals = dict.fromkeys(survey.layers, torch.zeros((), dtype=torch.float64))

    def add(seen: LayerAttention) -> None:
        key, value, first = seen.key, seen.value, 0
        if bos is not None:
            first = bos.length
            key, value = (
                torch.cat([shared[seen.layer].to(own).expand(len(own), -1, -1, -1), own], 2)
                for shared, own in ((bos.keys, key), (bos.values, value))
            )
        place = torch.arange(key.shape[2], device=key.device)
        visible = place <= first + seen.batch.probe_index[:, None]
        rows = survey.jacobians(seen.layer, key, value, visible)
        totals[seen.layer] = totals[seen.layer] + rows.sum(0).cpu()

    for batch in batches:
        capture.observe(batch.to(capture.model.device), bos, shift=shift, watch=add)
    count = sum(len(batch.query_ids) for batch in batches)
    return [totals[layer] / count for layer in survey.layers]
