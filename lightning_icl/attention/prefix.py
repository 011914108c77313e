"""Attention over a shared prefix and a query's own tokens, computed apart and joined exactly.

The prefix's keys and values are stored once, at batch size 1: the queries of a whole batch meet them as one long
sequence. Axes: B batch, H query heads, K key/value heads, T own tokens, P prefix tokens, D head width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_icl.attention.heads import repeat_heads
from lightning_icl.attention.kernels import attention_with_lse, masked_attention_with_lse
from lightning_icl.bfloat16_support import multipliable

# Query rows of one masked call are cut so that its score matrix stays below this many numbers (64 MB in float32).
_MASKED_SCORES = 1 << 24


def join_attention(
    own: Float[Tensor, "batch head token width"],
    own_lse: Float[Tensor, "batch head token"],
    prefix: Float[Tensor, "batch head token width"],
    prefix_lse: Float[Tensor, "batch head token"],
) -> Float[Tensor, "batch head token width"]:
    """Attention over own and prefix tokens together, from the two apart.

    Softmax over a union is the two softmaxes weighted by their partition sums, so the result is exact.

    Args:
        own: output of attention to the own tokens.
        own_lse: log-sum-exp of the scores of the own tokens.
        prefix: output of attention to the prefix tokens.
        prefix_lse: log-sum-exp of the scores of the prefix tokens; -inf where none is visible.

    Returns:
        The joint output, in the dtype of `own`.
    """
    # sigmoid(b - a) = e^b / (e^a + e^b), but nothing can overflow, and -inf gives a share of exactly 0.
    prefix_share = torch.sigmoid(prefix_lse - own_lse).unsqueeze(-1).to(own.dtype)
    # One fused pass over the output, where own + share * (prefix - own) would take three.
    return torch.lerp(own, prefix, prefix_share)


def own_attention(
    query: Float[Tensor, "batch head token width"],
    key: Float[Tensor, "batch kv_head token width"],
    value: Float[Tensor, "batch kv_head token width"],
    *,
    scaling: float,
    softcap: float | None = None,
    visible: Bool[Tensor, "#batch token token"] | None = None,
    bias: Float[Tensor, "#batch head 1 token"] | None = None,
) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head token"]]:
    """Causal attention of each query prompt to itself, and its log-sum-exp.

    Args:
        query: after rotary embedding.
        key: after rotary embedding, head groups not yet repeated.
        value: head groups not yet repeated.
        scaling: factor on the scores.
        softcap: scores become `softcap * tanh(scores / softcap)`.
        visible: which key each query sees, where that is less than plain causality allows (window, branches).
        bias: added to the scaled scores (ALiBi).
    """
    if softcap is None and visible is None and bias is None:
        return attention_with_lse(query, key, value, scaling=scaling, causal=True)
    heads, tokens = query.shape[1:3]
    if visible is None:
        visible = torch.ones(1, tokens, tokens, dtype=torch.bool, device=query.device).tril()
    return masked_attention_with_lse(
        query,
        repeat_heads(key, heads),
        repeat_heads(value, heads),
        scaling=scaling,
        softcap=softcap,
        visible=visible.unsqueeze(1),
        bias=bias,
    )


def prefix_attention(
    query: Float[Tensor, "batch head token width"],
    key: Float[Tensor, "1 kv_head prefix width"],
    value: Float[Tensor, "1 kv_head prefix width"],
    *,
    scaling: float,
    softcap: float | None = None,
    window: int | None = None,
    positions: Int[Tensor, "batch token"] | None = None,
    span: range | None = None,
    bias: Float[Tensor, "head prefix"] | None = None,
) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head token"]]:
    """Attention of a whole batch of queries to one shared prefix, and its log-sum-exp.

    The heads of a group share their keys, so they join the sequence axis: nothing is expanded.

    Args:
        query: after rotary embedding at positions that follow the prefix.
        key: the prefix's keys, stored once.
        value: the prefix's values, stored once.
        scaling: factor on the scores.
        softcap: scores become `softcap * tanh(scores / softcap)`.
        window: a query at absolute position i sees prefix position j only if `i - j < window`.
        positions: absolute position of each query token; needed with `window`.
        span: positions that all of these lie in, where it is known without reading them, which would wait for a GPU:
            only keys that some of them may see and others not are masked.
        bias: added to the scaled scores of each head (ALiBi).
    """
    batch, heads, tokens, width = query.shape
    kv_heads = key.shape[1]
    group_size = heads // kv_heads
    if key.shape[2] == 1 and softcap is None and window is None and bias is None:
        # A lone BOS: softmax over one key is that key's value, whatever its score.
        one_query, one_key = multipliable(query, repeat_heads(key, heads))
        scores = (one_query @ one_key.mT).to(torch.promote_types(one_query.dtype, torch.float32)) * scaling
        return repeat_heads(value, heads).expand(batch, -1, tokens, -1), scores[..., 0]
    # Batch and group move into the sequence axis: with no causal order towards the prefix, all queries are just rows.
    rows = query.unflatten(1, (kv_heads, group_size)).permute(1, 2, 0, 3, 4).reshape(1, kv_heads, -1, width)
    if positions is not None:
        positions = positions.reshape(1, -1).expand(group_size, -1).reshape(-1)
    if softcap is None and window is None and bias is None:
        out, lse = attention_with_lse(rows, key, value, scaling=scaling, causal=False)
    elif softcap is None and window is not None and positions is not None and span and bias is None:
        out, lse = _windowed_prefix_attention(
            rows, key, value, scaling=scaling, window=window, positions=positions, span=span
        )
    else:
        out, lse = _masked_prefix_attention(
            rows,
            key,
            value,
            scaling=scaling,
            softcap=softcap,
            window=window,
            positions=positions,
            bias=None if bias is None else bias.unflatten(0, (kv_heads, group_size)),
        )
    out = out.reshape(kv_heads, group_size, batch, tokens, width).permute(2, 0, 1, 3, 4).flatten(1, 2)
    lse = lse.reshape(kv_heads, group_size, batch, tokens).permute(2, 0, 1, 3).flatten(1, 2)
    return out, lse


def _windowed_prefix_attention(
    rows: Tensor, key: Tensor, value: Tensor, *, scaling: float, window: int, positions: Tensor, span: range
) -> tuple[Tensor, Tensor]:
    """The long sequence against a prefix that a window cuts.

    Queries stand close together: most of the prefix is within the window of all of them or of none. Only the keys that
    some see and some do not need a mask.
    """
    keys = key.shape[2]
    first, last = (min(max(0, end + 1 - window), keys) for end in (span[0], span[-1]))
    parts = []
    start = min(first, keys - 1)  # one key stays where none is seen: it gets output 0 and log-sum-exp -inf
    if start < last:
        part = slice(start, last)
        parts.append(
            _masked_prefix_attention(
                rows,
                key[:, :, part],
                value[:, :, part],
                scaling=scaling,
                softcap=None,
                window=window,
                positions=positions - start,
                bias=None,
            )
        )
    if last < keys:
        parts.append(attention_with_lse(rows, key[:, :, last:], value[:, :, last:], scaling=scaling, causal=False))
    if len(parts) == 1:
        return parts[0]
    (some, some_lse), (every, every_lse) = parts
    return join_attention(some, some_lse, every, every_lse), torch.logaddexp(some_lse, every_lse)


def _masked_prefix_attention(
    rows: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float,
    softcap: float | None,
    window: int | None,
    positions: Tensor | None,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The long sequence against the prefix, in pieces whose score matrix stays small."""
    prefix_positions = torch.arange(key.shape[2], device=rows.device)
    step = max(1, _MASKED_SCORES // (key.shape[1] * key.shape[2]))
    # Rows run over groups first: this many rows share one head's bias.
    queries = rows.shape[2] // (1 if bias is None else bias.shape[1])
    outs, lses = [], []
    for start in range(0, rows.shape[2], step):
        piece = slice(start, start + step)
        visible = None
        # Causality needs no mask here, since every prefix token comes before every query; only a window hides some.
        if window is not None and positions is not None:
            visible = (positions[piece, None] - prefix_positions < window)[None, None]
        row_bias = None
        if bias is not None:  # rows of one head of a group stand together
            group = torch.arange(rows.shape[2], device=rows.device)[piece] // queries
            row_bias = bias[None, :, group]
        out, lse = masked_attention_with_lse(
            rows[:, :, piece], key, value, scaling=scaling, softcap=softcap, visible=visible, bias=row_bias
        )
        outs.append(out)
        lses.append(lse)
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)
