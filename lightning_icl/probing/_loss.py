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

# Logits of one piece: what is widened or exponentiated at a time stays in a processor's cache, 2 MB in float32.
_PIECE = {"cpu": 1 << 19}
_PIECE_ELSEWHERE = 1 << 24


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
        # With the losses, since both are made of the same exponentials.
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        losses = [
            _mean_loss(logits[row, span], token_ids[row, span], None if gradient is None else gradient[row, span])
            for row, span in enumerate(spans)
        ]
        if gradient is not None:
            for row, span in enumerate(spans):
                # Padding, and what is given: nothing is predicted there.
                gradient[row, : span.start] = 0
                gradient[row, span.stop - 1 :] = 0
            ctx.save_for_backward(gradient)
        return torch.stack(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_losses: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        # As a sum of losses has it, which spares another pass over all logits.
        if not (of_losses == 1).all():
            gradient = gradient * of_losses[:, None, None].to(gradient)
        return gradient, None, None


def _mean_loss(logits: Tensor, token_ids: Tensor, gradient: Tensor | None) -> Tensor:
    """The loss of one row; its gradient by the logits (token, vocabulary) is written where that is given."""
    predicted = len(token_ids) - 1
    losses = []
    # In pieces: a vocabulary of 262,144 tokens makes one example's float32 logits larger than the model.
    for piece, targets, into in _pieces(logits, token_ids, gradient):
        wide = at_least_float32(piece)
        largest = wide.amax(-1, keepdim=True)
        shares = (wide - largest).exp_()
        total = shares.sum(-1, keepdim=True)
        losses.append(total.log() + largest - wide.gather(-1, targets[:, None]))
        if into is not None:
            # Softmax minus one at the target, as a share of the mean.
            shares.div_(total * predicted)
            shares.scatter_add_(-1, targets[:, None], shares.new_full((len(targets), 1), -1 / predicted))
            into.copy_(shares)
    return torch.cat(losses).mean()


def _pieces(
    logits: Tensor, token_ids: Tensor, gradient: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Logits, the tokens that follow them and their place in the gradient, few enough at a time to be widened."""
    step = max(1, _PIECE.get(logits.device.type, _PIECE_ELSEWHERE) // logits.shape[-1])
    for start in range(0, len(token_ids) - 1, step):
        piece = slice(start, min(start + step, len(token_ids) - 1))
        following = token_ids[piece.start + 1 : piece.stop + 1]
        yield logits[piece], following, None if gradient is None else gradient[piece]
