"""The strict exponential moving average of values, EMA(V)_t = Σ_{i<t} η^{t−i} v_i, and its rate η.

As a recurrence s_1 = 0, s_{t+1} = η (s_t + v_t), with s_t the EMA of token t (Dai et al. 2023, section 5): a token's
own value is not in it. B batch, K value heads, T tokens, S keys, D head width.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_icl.attention._scan import scan
from lightning_icl.errors import UserError

DEFAULT_ETA = 0.9
"""Ours: the paper does not publish its η."""


def check_eta(eta: float) -> float:
    """Returns η once it is known to be valid.

    Raises:
        UserError: it does not lie strictly between 0 and 1.
    """
    if not 0 < eta < 1:
        raise UserError(f"eta = {eta}: it must lie strictly between 0 and 1. Leave momentum out for plain attention.")
    return float(eta)


def value_ema(
    value: Float[Tensor, "batch head token width"],
    eta: float | Float[Tensor, "#head"],
    *,
    state: Float[Tensor, "batch head width"] | None = None,
    present: Bool[Tensor, "batch token"] | None = None,
    restart: Bool[Tensor, "batch token"] | None = None,
) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head width"]]:
    """The strict exponential moving average of values, and the state it leaves for the tokens to come.

    float16 and bfloat16 values are summed in float32. Differentiable once in value, η and state; what is kept for
    the backward pass is the values themselves.

    Args:
        value: v; every head is summed on its own.
        eta: η in (0, 1), one for all heads or one for each.
        state: s of the first token, as a former call returned it; zero without.
        present: false at padding, which adds nothing and decays nothing.
        restart: first tokens of packed documents: what came before them, and `state`, is forgotten.

    Returns:
        s_t of every token, in the type of `value`, and s_{T+1} in float32 or better.

    Raises:
        UserError: η does not lie strictly between 0 and 1, or shapes do not fit.

    >>> ema, state = value_ema(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1), 0.5)
    >>> ema.flatten().tolist(), state.flatten().tolist()
    ([0.0, 0.5, 1.25], [2.125])
    """
    batch, heads, tokens, width = value.shape
    dtype = torch.promote_types(value.dtype, torch.float32)
    rate = eta_tensor(eta, heads, like=value)
    if state is None:
        state = value.new_zeros(batch, heads, width, dtype=dtype)
    # A scan over nothing has no chunk to work in.
    if tokens == 0:
        return value, state
    if state.shape != (batch, heads, width):
        raise UserError(
            f"state has shape {tuple(state.shape)}; values {tuple(value.shape)} need {(batch, heads, width)}."
        )
    for name, flags in (("present", present), ("restart", restart)):
        if flags is not None and flags.shape != (batch, tokens):
            raise UserError(
                f"{name} has shape {tuple(flags.shape)}; values {tuple(value.shape)} need {(batch, tokens)}."
            )
    # Zero adds nothing to a sum; that padding does not decay it either is what `steps` says below.
    if present is not None:
        value = value.masked_fill(~present[:, None, :, None], 0.0)
    # One η for all: heads that lie side by side are summed as one wide head, without a copy.
    wide = rate.numel() == 1 and heads > 1 and value.stride(1) == width
    if wide:
        value, state = value.transpose(1, 2).flatten(2).unsqueeze(1), state.flatten(1).unsqueeze(1)
    ema, state = _ValueEMA.apply(value, rate, state.to(dtype), None if present is None else present.long(), restart)
    if wide:
        ema, state = ema.squeeze(1).unflatten(-1, (heads, width)).transpose(1, 2), state.reshape(batch, heads, width)
    return ema, state


class _ValueEMA(torch.autograd.Function):
    """The scan, whose adjoint is the scan from the other end: nothing but its inputs is kept."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, eta: Tensor, state: Tensor, steps: Tensor | None, cuts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        # Autocast would run the scan's matrix products in half precision, and the sum's error grows with its length.
        with _full_precision(value.device):
            ema, last = _forward(value.to(state.dtype), eta, state, steps, cuts)
        # Only inputs are kept: the EMA is as large as the values and cheap to compute again.
        ctx.save_for_backward(value, eta, state, steps, cuts)
        return ema.to(value.dtype), last

    @staticmethod
    @once_differentiable  # an adjoint of the adjoint is not implemented: a second derivative raises
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        value, eta, state, steps, cuts = ctx.saved_tensors
        rate = eta.view(-1, 1).to(state.dtype)
        grad = grad.to(state.dtype)
        # The output at a restart was set to 0, so nothing flows back through it.
        if cuts is not None:
            grad = grad.masked_fill(cuts[:, None, :, None], 0.0)
        with _full_precision(value.device):
            # η times the gradient of the state behind each token
            behind = scan(
                grad, eta, rate * grad_last, steps=1 if steps is None else steps, cuts=cuts, lag=1, reverse=True
            )
            # `behind` carries a factor η for the value's gradient; the state's own gradient is without it.
            grad_state = behind[:, :, 0] / rate * _decay(rate, steps, cuts, 0) + grad[:, :, 0]
            if steps is not None:
                behind = behind * steps[:, None, :, None]
            grad_eta = None
            # The EMA is computed again only where η is learnt.
            if ctx.needs_input_grad[1]:
                wide = value.to(state.dtype)
                ema, _ = _forward(wide, eta, state, steps, cuts)
                # A state η (s + v) has the derivative s + v; the η that `behind` carries is divided out again.
                by_head = (behind * (ema + wide)).sum((0, 2, 3)).to(eta.dtype) / eta
                # One η shared by all heads collects the gradients of all.
                grad_eta = by_head if eta.shape == by_head.shape else by_head.sum(0, keepdim=True)
        return behind.to(value.dtype), grad_eta, grad_state, None, None


def _forward(
    value: Tensor, eta: Tensor, state: Tensor, steps: Tensor | None, cuts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """EMA and the state behind the last token; padding is zero already."""
    ema = scan(value, eta, state, steps=1 if steps is None else steps, cuts=cuts, lag=1)
    rate = eta.view(-1, 1).to(value.dtype)
    last = _decay(rate, steps, cuts, -1) * ema[:, :, -1] + rate * value[:, :, -1]
    if cuts is not None:
        # Set after `last` is taken: the state behind a restart at the last token comes from its own value alone.
        ema = ema.masked_fill(cuts[:, None, :, None], 0.0)
    return ema, last


def _decay(rate: Tensor, steps: Tensor | None, cuts: Tensor | None, token: int) -> Tensor:
    """What one token leaves of the state before it, (B or 1, K or 1, 1)."""
    decay = rate.view(1, -1, 1)
    if steps is not None:
        decay = decay ** steps[:, token].view(-1, 1, 1)
    return decay if cuts is None else decay * ~cuts[:, token].view(-1, 1, 1)


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast turned off, where a device has it: the meta device, for one, refuses even that."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def eta_tensor(eta: float | Tensor, heads: int, *, like: Tensor) -> Tensor:
    """η as a tensor in float32 or better, with one entry or one for each head.

    Raises:
        UserError: it does not lie strictly between 0 and 1, or has a wrong number of entries. Values are checked on the
            CPU only: reading them from another device would make the program wait for it.
    """
    if not isinstance(eta, Tensor):
        dtype = torch.float32 if like.device.type == "mps" else torch.float64  # rounding η moves long sums
        return torch.full((1,), check_eta(eta), dtype=dtype, device=like.device)
    if eta.numel() not in (1, heads) or eta.dim() > 1:
        raise UserError(f"eta has shape {tuple(eta.shape)}: give one number, or one for each of the {heads} heads.")
    # A compiled graph cannot branch on values either.
    if eta.device.type == "cpu" and not torch.compiler.is_compiling():
        for one in eta.flatten().tolist():
            check_eta(one)
    return eta.reshape(-1).to(device=like.device, dtype=torch.promote_types(eta.dtype, torch.float32))


def ema_of_seen(
    value: Float[Tensor, "batch head key width"],
    eta: float | Float[Tensor, "#head"],
    seen: Bool[Tensor, "#batch token key"],
) -> Float[Tensor, "batch head token width"]:
    """The EMA of a few tokens over all cached values, by one weighted sum for each: the last key seen is a token's own.

    A cache that is reordered, as beam search does, or filled up, as a static one is, needs no state to follow it. Each
    token costs as much as its attention does.

    Args:
        value: of all tokens in the cache.
        eta: η in (0, 1), one for all heads or one for each.
        seen: which keys each token's attention sees; those in between, such as padding, decay nothing.
    """
    rate = eta_tensor(eta, value.shape[1], like=value).view(-1, 1, 1)
    # How many seen keys come after each: counted from the right, and 0 for the token's own.
    rank = seen.long().flip(-1).cumsum(-1).flip(-1) - 1
    # Rank 0 is the token itself, which the strict average leaves out.
    weights = rate ** rank.clamp(min=0).unsqueeze(1) * (seen & (rank > 0)).unsqueeze(1)
    dtype = torch.promote_types(value.dtype, torch.float32)
    with _full_precision(value.device):
        return (weights.to(dtype) @ value.to(dtype)).to(value.dtype)


def learnt_eta(logits: Float[Tensor, " head"]) -> Float[Tensor, " head"]:
    # bfloat16 rounds a sigmoid near 1 to exactly 1, and then the average never forgets.
    """η from learnt numbers: their sigmoid in float32 or better, kept off 0 and 1 where rounding would reach them."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid().clamp(1e-6, 1 - 1e-6)


def logit(eta: float) -> float:
    """The number whose sigmoid is η."""
    return math.log(check_eta(eta) / (1 - eta))
