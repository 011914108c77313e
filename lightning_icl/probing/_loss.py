"""The causal language-modelling loss of examples, exact to rounding for vocabularies of any size."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    losses = [next_token_loss(logits[row, span], token_ids[row, span]) for row, span in enumerate(spans)]
    return torch.stack(losses), queries


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
    step = max(1, _PIECE // logits.shape[-1])
    targets = token_ids[1:].to(logits.device)
    losses = [
        _token_losses(at_least_float32(piece), targets_of_piece)
        for piece, targets_of_piece in zip(logits[:-1].split(step), targets.split(step), strict=True)
    ]
    return torch.cat(losses).mean()


def _token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.logsumexp(-1) - logits.gather(-1, targets[:, None])[:, 0]
