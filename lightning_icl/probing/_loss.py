"""The causal language-modelling loss of examples, exact to rounding for vocabularies of any size."""

from collections.abc import Callable, Sequence
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
    predicting = [slice(span.start, span.stop - 1) for span in spans]
    logits, queries = capture.train_forward(token_ids, predicting)
    following = [token_ids[row, span.start + 1 : span.stop] for row, span in enumerate(spans)]
    # Logits of a spread model come from its last device.
    return _MeanLosses.apply(logits, torch.cat(following).to(logits.device), list(map(len, following))), queries


def next_token_loss(logits: Float[Tensor, "token vocabulary"], following: Int[Tensor, " token"]) -> Float[Tensor, ""]:
    """Mean over tokens of `logsumexp(logits) - logits[following]`, in nats per token.

    In float32 or better, and not by `cross_entropy`: on processors that sums the exponentials of a row in a float32
    running total, which loses digits once there are many of them (1e-4 of the loss for Gemma's 262,144 tokens).

    Args:
        logits: after each token.
        following: the token that follows it.

    >>> next_token_loss(torch.zeros(2, 4), torch.tensor([1, 2]))
    tensor(1.3863)
    """
    return _MeanLosses.apply(logits, following.to(logits.device), [len(following)])[0]


class _MeanLosses(torch.autograd.Function):
    """The mean loss of every example, one after the other, with a gradient that is written once.

    Autograd would write one as large as all logits for each example, and several on the way.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, following: Tensor, counts: Sequence[int]) -> Tensor:
        # With the losses, since both are made of the same exponentials.
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        dtype = torch.promote_types(logits.dtype, torch.float32)
        share = torch.cat([torch.full((count, 1), 1 / count, dtype=dtype) for count in counts]).to(logits.device)
        losses = []
        # In pieces: a vocabulary of 262,144 tokens makes one example's float32 logits larger than the model.
        step = max(1, _PIECE.get(logits.device.type, _PIECE_ELSEWHERE) // logits.shape[-1])
        for start in range(0, len(logits), step):
            piece = slice(start, start + step)
            wide, targets = at_least_float32(logits[piece]), following[piece, None]
            largest = wide.amax(-1, keepdim=True)
            shares = (wide - largest).exp_()
            total = shares.sum(-1, keepdim=True)
            losses.append((total.log() + largest - wide.gather(-1, targets))[:, 0])
            if gradient is not None:
                # Softmax minus one at the target, as a share of the example's mean.
                shares.mul_(share[piece] / total)
                gradient[piece] = shares.scatter_add_(-1, targets, -share[piece])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.counts = counts
        return torch.stack([of_example.mean() for of_example in torch.cat(losses).split(list(counts))])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_losses: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        # A sum of losses has ones, which spare another pass over all logits.
        if not (of_losses == 1).all():
            counts = torch.tensor(ctx.counts, device=of_losses.device)
            gradient = gradient * of_losses.repeat_interleave(counts)[:, None].to(gradient)
        return gradient, None, None
