"""The causal language-modelling loss of one example, exact to rounding for vocabularies of any size."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_icl.attention.precision import at_least_float32

# Logits of one piece: what is widened or exponentiated at a time stays below 64 MB in float32.
_PIECE = 1 << 24


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
