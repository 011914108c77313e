"""Momentum attention: causal attention plus an exponential moving average of the values before a token.

`MoAttn(V, K, q_t) = Attn(V, K, q_t) + Σ_{i<t} η^{t−i} v_i` (Dai et al. 2023, section 5), as a function and as a module;
beside this sum, the other forms of `attention.forms` and a gate for each head.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lightning_icl.attention.ema import DEFAULT_ETA, check_eta, ema_of_seen, learnt_eta, logit, value_ema
from lightning_icl.attention.form_names import Form, check_form
from lightning_icl.attention.forms import momentum_of
from lightning_icl.attention.heads import repeat_heads
from lightning_icl.errors import UserError


def momentum_attention(
    query: Float[Tensor, "batch head token width"],
    key: Float[Tensor, "batch kv_head key width"],
    value: Float[Tensor, "batch kv_head key value_width"],
    eta: float | Float[Tensor, "..."] = DEFAULT_ETA,
    *,
    form: Form = "sum",
    gate: float | Float[Tensor, "..."] | None = None,
    padding_mask: Bool[Tensor, "batch key"] | None = None,
    position_ids: Int[Tensor, "batch key"] | None = None,
    scaling: float | None = None,
) -> Float[Tensor, "batch head token value_width"]:
    """`MoAttn(V, K, q_t) = Attn(V, K, q_t) + g w Σ_{i<t} η^{t−i} v_i` (Dai et al. 2023, section 5: g = w = 1), causal.

    Args:
        query: of all tokens, or of the last ones where keys and values come from a cache.
        key: as many heads as the query, or fewer that groups of query heads share.
        value: like the keys.
        eta: η in (0, 1): a number, or a tensor with one entry, one for each query head or one for each value head.
        form: `sum`, the paper's, has w = 1; `mean` has w = (1 − η)/η, one over the weights' sum; `previous` adds
            v_{t−1} alone and reads no η.
        gate: g, like η; none is 1, and 0 is plain attention.
        padding_mask: false at padding, on either side.
        position_ids: of packed documents, restarting with each; tokens see and sum their own document only.
        scaling: factor on the scores; `width ** -0.5` without.

    Returns:
        The output of every token, in the type of `query`; at padding it means nothing.

    Raises:
        UserError: η does not lie strictly between 0 and 1, there is no such form, or shapes do not fit.
    """
    _check_shapes(query, key, value, padding_mask, position_ids)
    heads, tokens, keys = query.shape[1], query.shape[2], key.shape[2]
    _check_gate(gate, heads, value.shape[1])
    momentum = momentum_of(form, eta, gate)
    restart = None if position_ids is None else document_starts(position_ids)
    # Positions at padding are arbitrary and may look like a new document.
    if restart is not None and padding_mask is not None:
        restart = restart & padding_mask
    seen = None
    # Without any of the three, the kernel's own causal flag is faster than a mask in memory.
    if padding_mask is not None or restart is not None or tokens < keys:
        seen = _seen(tokens, keys, padding_mask, restart, query.device)
    # η per query head: heads of one group no longer share an average, so values are repeated before it.
    if isinstance(momentum.eta, Tensor) and momentum.eta.numel() == heads != value.shape[1]:
        value = repeat_heads(value, heads)
    summed = momentum.summed(value)
    # All tokens are here: one linear scan. With a cache, only the last tokens' averages are needed.
    if seen is None or tokens == keys:
        ema, _ = value_ema(summed, momentum.eta, present=padding_mask, restart=restart)
    else:
        ema = ema_of_seen(summed, momentum.eta, seen)
    mask = None if seen is None else seen.unsqueeze(1)
    out = scaled_dot_product_attention(
        query,
        repeat_heads(key, heads),
        repeat_heads(value, heads),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
    )
    return momentum.added(out, ema)


def document_starts(positions: Int[Tensor, "batch token"]) -> Bool[Tensor, "batch token"]:
    """Where packed documents begin: a position that does not follow the one before it.

    >>> document_starts(torch.tensor([[0, 1, 2, 0, 1]])).tolist()
    [[False, False, False, True, False]]
    """
    return torch.diff(positions, prepend=positions[:, :1] - 1) != 1


def _seen(tokens: int, keys: int, present: Tensor | None, restart: Tensor | None, device: torch.device) -> Tensor:
    """(B or 1, T, S) which keys each of the last tokens sees; its own always, lest a softmax be over nothing."""
    own = torch.arange(keys - tokens, keys, device=device)[:, None]
    key = torch.arange(keys, device=device)
    seen = (key <= own).unsqueeze(0)
    if present is not None:
        # Padding sees its own key too: a softmax over nothing is nan, and nan * 0 in later layers stays nan.
        seen = seen & present.unsqueeze(1)
    if restart is not None:
        # A running count of starts numbers the documents.
        document = restart.cumsum(-1)
        seen = seen & (document[:, keys - tokens :, None] == document[:, None])
    return seen | (key == own)


def _check_shapes(
    query: Tensor, key: Tensor, value: Tensor, padding_mask: Tensor | None, position_ids: Tensor | None
) -> None:
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if key.shape[:3] != value.shape[:3] or key.shape[0] != query.shape[0] or key.shape[3] != query.shape[3]:
        raise UserError(f"{shapes} do not fit: give (batch, head, token, width) each, keys and values alike.")
    if query.shape[1] % key.shape[1]:
        raise UserError(f"{shapes} do not fit: the query's heads must be a multiple of the keys' and values'.")
    if query.shape[2] > key.shape[2]:
        raise UserError(f"{shapes} do not fit: every query token needs its own key.")
    for name, given in (("padding_mask", padding_mask), ("position_ids", position_ids)):
        if given is not None and given.shape != (key.shape[0], key.shape[2]):
            raise UserError(f"{name} has shape {tuple(given.shape)}: give (batch, key), as {shapes}.")


def _check_gate(gate: float | Tensor | None, heads: int, value_heads: int) -> None:
    if isinstance(gate, Tensor) and (gate.dim() > 1 or gate.numel() not in (1, value_heads, heads)):
        raise UserError(
            f"gate has shape {tuple(gate.shape)}: give one number, one for each of the {heads} query heads, or one for "
            f"each of the {value_heads} value heads."
        )


class MomentumAttention(nn.Module):
    """Momentum attention as a module that holds η and gates.

    Args:
        heads: heads that have an η and a gate of their own where these are learnt: those of the values, or those of the
            queries.
        eta: η, or the value that learning starts from.
        learn: whether η is learnt, one for each head, as the sigmoid of a parameter.
        form: `sum`, `mean` or `previous`, as for `momentum_attention`.
        gate_init: first value of a learnt gate for each head; 0 starts as plain attention, and without it there is no
            gate.

    Raises:
        UserError: η does not lie strictly between 0 and 1, or there is no such form.
    """

    def __init__(
        self,
        heads: int,
        eta: float = DEFAULT_ETA,
        *,
        learn: bool = False,
        form: Form = "sum",
        gate_init: float | None = None,
    ) -> None:
        super().__init__()
        self.form: Form = check_form(form)
        self.gate = None if gate_init is None else nn.Parameter(torch.full((heads,), float(gate_init)))
        # The logit is learnt, not η: every step of an optimizer then stays inside (0, 1).
        self.fixed = check_eta(eta)
        self.logit = nn.Parameter(torch.full((heads,), logit(eta))) if learn else None

    @property
    def eta(self) -> float | Tensor:
        """η as it is now."""
        return self.fixed if self.logit is None else learnt_eta(self.logit)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        """As `momentum_attention`, with its keyword arguments for masks and scale."""
        return momentum_attention(query, key, value, self.eta, form=self.form, gate=self.gate, **settings)
