"""From what a capture recorded to an `Observation`: one condition's view of a batch of queries."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_icl.attention.precision import at_least_float32
from lightning_icl.errors import NumericalError
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import LaidOver, overlaid
from lightning_icl.models.recording import Prefix, Recording
from lightning_icl.records import Condition, Observation, QueryBatch


@dataclass(frozen=True, kw_only=True)
class View:
    """A condition made ready for a model: its prefix has been run, its overlay fits."""

    condition: Condition
    prefix: Prefix | None
    overlay: LaidOver | None
    content_free: Tensor | None = None
    """Log-probability of each answer after content-free inputs (answer); None where scores are taken as is."""

    @classmethod
    def prepare(cls, capture: Capture, condition: Condition, overlay: LaidOver | None = None) -> "View":
        """Run the condition's prefix once, under its own weights.

        Args:
            capture: an open visit to the model.
            condition: what to prepare.
            overlay: the condition's overlay made ready, which conditions may share; without it, it is made here.
        """
        if overlay is None and condition.overlay is not None:
            overlay = LaidOver(capture.model, condition.overlay)
        # The prefix is run under the fine-tuned weights too: its keys and values depend on them.
        with overlaid(overlay):
            prefix = capture.prefix(condition.prefix_token_ids)
        return cls(condition=condition, prefix=prefix, overlay=overlay).read_as(condition, capture)

    def read_as(self, condition: Condition, capture: Capture) -> "View":
        """A view of the same pass whose scores are read as another condition reads them.

        Args:
            condition: one with the same `inputs`.
            capture: an open visit to the model.
        """
        view = replace(self, condition=condition, content_free=None)
        if condition.content_free is None:
            return view
        scores = view.observe(capture, condition.content_free.to(capture.model.device)).answer_scores
        # Mean probability over the content-free inputs, in logarithms.
        return replace(view, content_free=scores.log_softmax(-1).logsumexp(0) - math.log(len(scores)))

    def observe(self, capture: Capture, batch: QueryBatch) -> Observation:
        """Look at a batch of queries: what all conditions with these inputs see, answer scores as they are.

        Raises:
            NumericalError: the model produced NaN or infinite numbers.
        """
        with overlaid(self.overlay):
            logits, recording = capture.observe(batch, self.prefix, self.condition.position_offset)
        answers = self.condition.answer_ids
        scores = answer_scores(logits, batch if answers is None else batch.scoring(answers))
        outputs = at_least_float32(torch.stack(recording.outputs, dim=1))
        # -inf of answers that a row lacks is meant, and no sign of divergence.
        absent = ~_present(batch)
        if not (torch.isfinite(scores).logical_or(absent).all() and torch.isfinite(outputs).all()):
            raise _not_finite(self.condition.name, scores.masked_fill(absent, 0.0), outputs, batch)
        return Observation(
            answer_scores=scores,
            attention_output=outputs,
            own_scores=torch.stack(recording.own_scores, dim=1),
            own_lengths=batch.probe_index + 1,
            query=at_least_float32(torch.stack(recording.queries, dim=1)),
            prefix_scores=_prefix_scores(recording, outputs),
            prefix_visible=_visible(recording, self.prefix, batch, self.condition.position_offset),
            reaches_prefix=_reaches_prefix(recording, self.prefix, batch),
            # Taken before the widening above: rounding happened in the model's own type.
            epsilon=torch.finfo(recording.outputs[0].dtype).eps,
        )

    def read(self, observation: Observation) -> Observation:
        """What this condition makes of an observation under its inputs: calibrated answer scores, if that is asked."""
        if self.content_free is None:
            return observation
        # Subtracting logarithms divides by the probability after content-free inputs (Zhao et al., 2021).
        return replace(observation, answer_scores=observation.answer_scores - self.content_free)


def answer_scores(logits: Tensor, batch: QueryBatch) -> Tensor:
    """Mean log-probability of each answer's tokens after the prompt (batch, answer), in float32 or better.

    A query with fewer answers than another of its batch has -inf in the places it lacks, which can never be chosen.

    Args:
        logits: (logit, vocabulary) at the batch's scored positions.
        batch: says which logits predict which answer tokens.
    """
    logits = at_least_float32(logits)
    chosen = logits[batch.scored_logits, batch.scored_ids] - logits.logsumexp(-1)[batch.scored_logits]
    shape = (len(batch.query_ids), batch.answers)
    # `index_put_` with accumulate sums each answer's tokens whatever their number.
    place = (batch.scored_rows, batch.scored_answers)
    total = logits.new_zeros(shape).index_put_(place, chosen, accumulate=True)
    count = logits.new_zeros(shape).index_put_(place, torch.ones_like(chosen), accumulate=True)
    # Lacking answers are 0 / 0 here.
    return (total / count).masked_fill(~_present(batch), float("-inf"))


def _present(batch: QueryBatch) -> Tensor:
    """(batch, answer): which answers each query has."""
    return torch.arange(batch.answers, device=batch.answer_counts.device) < batch.answer_counts[:, None]


def _prefix_scores(recording: Recording, outputs: Tensor) -> Tensor:
    if not recording.prefix_scores:  # no BOS, hence nothing before a zero-shot query
        return outputs.new_zeros(outputs.shape[0], outputs.shape[1], 0)
    return torch.stack(recording.prefix_scores, dim=1)


def _visible(recording: Recording, prefix: Prefix | None, batch: QueryBatch, offset: int) -> Tensor | None:
    """(batch, layer, prefix) of prefix tokens within reach of the probe token, where some window cuts them."""
    if prefix is None or all(window is None for window in recording.windows):
        return None
    tokens = torch.arange(prefix.length, device=batch.probe_index.device)
    # Counted from the prefix's start, as the window counts.
    position = prefix.length + offset + batch.positions.gather(1, batch.probe_index[:, None])
    return torch.stack(
        [
            torch.ones_like(position - tokens, dtype=torch.bool) if window is None else position - tokens < window
            for window in recording.windows
        ],
        dim=1,
    )


def _reaches_prefix(recording: Recording, prefix: Prefix | None, batch: QueryBatch) -> Tensor | None:
    """(batch, layer): whether the probe token's attention output can depend on the prefix; None where all can.

    A layer with a window of w tokens looks back w - 1 tokens from where the layer below has looked to.
    """
    windows = recording.windows
    # Full attention at the first layer can reach everything; so can a moving average of values.
    if prefix is None or prefix.emas or windows[0] is None:
        return None
    steps = [math.inf if window is None else float(window - 1) for window in windows]
    # Layers add up: the keys in reach have themselves looked back.
    looked_back = torch.tensor(steps, device=batch.positions.device).cumsum(0)
    return batch.positions.gather(1, batch.probe_index[:, None]) < looked_back


def _not_finite(condition: str, scores: Tensor, outputs: Tensor, batch: QueryBatch) -> NumericalError:
    bad = ~torch.isfinite(outputs).all(-1)
    # The first row that went wrong, for the message.
    row = int((bad.any(1) | ~torch.isfinite(scores).all(1)).nonzero()[0])
    layers = bad[row].nonzero()
    where = f"first in the attention output of layer {int(layers[0])}" if len(layers) else "in its answer scores"
    return NumericalError(
        f"NaN or infinite numbers for query {int(batch.query_ids[row])} under condition {condition!r}, {where}. "
        "Nothing was measured. Use a smaller --lr, or --precision 32-true."
    )
