"""The causal language-modelling loss of examples, exact to rounding for vocabularies of any size."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_icl.attention.precision import at_least_float32
from lightning_icl.models.capture import Capture

TrainingLoss = Callable[[Capture, Tensor, Sequence[slice]], tuple[Tensor, list[Tensor]]]
"""What a fine-tuning learns from: see `language_modelling`."""

# Logits of one piece: what is widened or exponentiated at a time stays below 64 MB in float32.
_PIECE = 1 << 24


def language_modelling(capture: Capture, token_ids: Tensor, spans: Sequence[slice]) -> tuple[Tensor, list[Tensor]]:
    """The model's own loss.

    Args:
        capture: an open visit to the model.
        token_ids: (row, token), rows padded at their end.
        spans: of each row the tokens that are learnt from; all but their first are predicted.

    Returns:
        The loss of each row (row,) in nats per predicted token, and per layer the query vectors of all tokens.
    """
    logits, queries = capture.train_forward(token_ids)
    return _MeanLosses.apply(logits, token_ids, tuple(spans)), queries


def next_token_loss(logits: Float[Tensor, "token vocabulary"], token_ids: Int[Tensor, " token"]) -> Float[Tensor, ""]:
    """Mean over all tokens but the first of `logsumexp(logits) - logits[token]`, in nats per token.

    In float32 or better, and not by `cross_entropy`: on processors that sums the exponentials of a row in a float32
    running total, which loses digits once there are many of them (1e-4 of the loss for Gemma's 262,144 tokens).

    Args:
        logits: after each token of the example; those after its last one are not used.
        token_ids: the example.

    >>> next_token_loss(torch.zeros(3, 4), torch.tensor([0, 1, 2]))
    tensor(1.3863)
    """
    return _MeanLosses.apply(logits[None], token_ids[None], (slice(0, len(token_ids)),))[0]


class _MeanLosses(torch.autograd.Function):
    """The loss of every row, with a gradient that is written once.

    Autograd would write one as large as all rows for each of them, and several on the way from each row's slices.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, token_ids: Tensor, spans: Sequence[slice]) -> Tensor:
        token_ids = token_ids.to(logits.device)  # logits of a spread model come from its last device
        losses, totals = [], []
        for row, span in enumerate(spans):
            # In pieces: a vocabulary of 262,144 tokens makes one example's float32 logits larger than the model.
            own, totals_of_row = [], []
            for piece, targets in _pieces(logits[row, span], token_ids[row, span]):
                wide = at_least_float32(piece)
                total = wide.logsumexp(-1)
                own.append(total - wide.gather(-1, targets[:, None])[:, 0])
                totals_of_row.append(total)
            losses.append(torch.cat(own).mean())
            totals.append(torch.cat(totals_of_row))
        ctx.save_for_backward(logits, token_ids, *totals)
        ctx.spans = spans
        return torch.stack(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_losses: Tensor) -> tuple[Tensor, None, None]:
        logits, token_ids, *totals = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for row, span in enumerate(ctx.spans):
            own = gradient[row, span]
            gradient[row, : span.start] = 0  # padding, and what is given: nothing is predicted there
            gradient[row, span.stop - 1 :] = 0
            share = of_losses[row] / len(totals[row])
            places = iter(totals[row].split(_step(logits)))
            for (piece, targets), into in zip(
                _pieces(logits[row, span], token_ids[row, span]), own[:-1].split(_step(logits)), strict=True
            ):
                # Softmax minus one at the target is the gradient of the loss by the logits.
                shares = (at_least_float32(piece) - next(places)[:, None]).exp_().mul_(share)
                shares.scatter_add_(-1, targets[:, None], -share.expand(len(targets), 1))
                into.copy_(shares)
        return gradient, None, None


def _pieces(logits: Tensor, token_ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and the tokens that follow them, few enough at a time to be widened."""
    return zip(logits[:-1].split(_step(logits)), token_ids[1:].split(_step(logits)), strict=True)


def _step(logits: Tensor) -> int:
    return max(1, _PIECE // logits.shape[-1])
