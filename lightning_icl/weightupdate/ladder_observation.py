"""What one condition shows of a batch of queries, as far as the ladder compares it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_icl.attention.precision import at_least_float32
from lightning_icl.errors import NumericalError
from lightning_icl.models.capture import Capture
from lightning_icl.models.recording import Prefix
from lightning_icl.models.replacement import Replacement
from lightning_icl.probing.observation import answer_scores
from lightning_icl.records import QueryBatch


@dataclass(frozen=True, kw_only=True)
class LadderObservation:
    """Predictions and attention outputs at the probe tokens; float32, or float64 where the model is."""

    answer_scores: Float[Tensor, "batch answer"]
    """Mean log-probability of each answer's tokens after the prompt."""
    logits: Float[Tensor, "batch vocabulary"]
    """Of the token after the prompt."""
    outputs: Float[Tensor, "batch layer width"]
    """Output of each attention layer after its output projection."""


def observe_condition(
    capture: Capture,
    batch: QueryBatch,
    prefix: Prefix | None,
    *,
    name: str,
    offset: int = 0,
    replacement: Replacement | None = None,
) -> LadderObservation:
    """Run a batch of queries under one condition.

    Args:
        capture: an open visit to the model.
        batch: the queries, probed at their prompts' last token.
        prefix: what they follow.
        name: of the condition.
        offset: how many positions further on than right behind the prefix they stand.
        replacement: what stands in place of attention to the demonstrations.

    Raises:
        NumericalError: the model produced NaN or infinite numbers.
    """
    logits, recording = capture.observe(batch, prefix, offset, replacement)
    seen = LadderObservation(
        answer_scores=answer_scores(logits, batch),
        # Of the scored positions only the probe token's: the next token is what the ladder compares.
        logits=at_least_float32(logits[batch.logit_tokens == batch.probe_index[batch.logit_rows]]),
        outputs=at_least_float32(torch.stack(recording.outputs, dim=1)),
    )
    if not (torch.isfinite(seen.logits).all() and torch.isfinite(seen.outputs).all()):
        raise NumericalError(
            f"NaN or infinite numbers under condition {name!r}. Nothing was measured. Use a smaller --lr, or "
            "--precision 32-true."
        )
    return seen
