"""Attention that also returns the log-sum-exp of its scores: fused kernels where they exist, matrix products elsewhere.

`scaled_dot_product_attention` keeps the log-sum-exp to itself; the kernels below it return it.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from lightning_icl.attention.heads import repeat_heads
from lightning_icl.bfloat16_support import multipliable

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention
_EFFICIENT = torch.ops.aten._scaled_dot_product_efficient_attention
# Below this many keys the two small matrix products cost less than a kernel's set-up.
_FEW_KEYS = 8


def attention_with_lse(
    query: Float[Tensor, "batch head token width"],
    key: Float[Tensor, "batch kv_head key width"],
    value: Float[Tensor, "batch kv_head key width"],
    *,
    scaling: float,
    causal: bool,
) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head token"]]:
    """`softmax(scaling * query key^T) value` and the log-sum-exp of the scores, by the fastest kernel that serves.

    Args:
        query: its heads are a multiple of the keys'.
        key, value: heads that groups of query heads share, not repeated.
        scaling: factor on the scores.
        causal: token i sees keys 0..i only; needs as many tokens as keys.
    """
    few = not causal and key.shape[2] <= _FEW_KEYS
    if query.device.type == "cpu" and not few:
        return _cpu_flash(query, key, value, causal, scale=scaling)
    # All others match heads one to one; own tokens are few, so the copy is small.
    key, value = repeat_heads(key, query.shape[1]), repeat_heads(value, query.shape[1])
    # A kernel's set-up dominates for few keys: their score matrix is tiny, so it may as well stand in memory.
    if few:
        return masked_attention_with_lse(query, key, value, scaling=scaling)
    # The fused kernels of CUDA refuse float64.
    if query.device.type == "cuda" and query.dtype != torch.float64:
        return _cuda_fused(query, key, value, scaling, causal)
    visible = None
    if causal:
        visible = torch.ones(1, 1, query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    return masked_attention_with_lse(query, key, value, scaling=scaling, visible=visible)


def _cpu_flash(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Each group of heads as a batch of its own, whose heads share keys and values: expanded, not copied."""
    dtype, (batch, heads, tokens, width) = query.dtype, query.shape
    group = heads // key.shape[1]
    if group > 1:
        query = query.reshape(-1, group, tokens, width)
        key, value = (states.flatten(0, 1)[:, None].expand(-1, group, -1, -1) for states in (key, value))
    # CPUs without bfloat16 matrix products would emulate them many times slower than float32.
    query, key, value = multipliable(query, key, value)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)
    return out.to(dtype).reshape(batch, heads, tokens, -1), lse.reshape(batch, heads, tokens)


def _cuda_fused(query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool) -> tuple[Tensor, Tensor]:
    """Flash attention in half precision, the memory-efficient kernel in float32 or for wide heads."""
    tokens, width = query.shape[2], value.shape[3]
    half = query.dtype in (torch.float16, torch.bfloat16)
    # Kernels read 16 bytes at a time and refuse other widths: zeros change no score and add columns of zeros.
    query, key, value = (_padded(states, 8 if half else 4) for states in (query, key, value))
    # Flash raises on float32 and on widths over 256. cuDNN's kernel is faster on Hopper, but plans anew for every shape
    # (`benchmarks.prefix_kernels`).
    if half and query.shape[3] <= 256:
        out, lse, *_ = _FLASH(query, key, value, 0.0, causal, False, scale=scaling)
    else:
        # The fifth argument asks for the log-sum-exp, which this kernel leaves out by default.
        out, lse, *_ = _EFFICIENT(query, key, value, None, True, 0.0, causal, scale=scaling)
    # Kernels pad the log-sum-exp to whole blocks.
    return out[..., :width], lse[..., :tokens]


def _padded(states: Tensor, unit: int) -> Tensor:
    """Heads widened by zeros to a multiple of `unit`."""
    missing = -states.shape[-1] % unit
    return pad(states, (0, missing)) if missing else states


def masked_attention_with_lse(
    query: Float[Tensor, "batch head token width"],
    key: Float[Tensor, "batch head key width"],
    value: Float[Tensor, "batch head key width"],
    *,
    scaling: float,
    softcap: float | None = None,
    visible: Bool[Tensor, "#batch #head token key"] | None = None,
    bias: Float[Tensor, "#batch head #token key"] | None = None,
) -> tuple[Float[Tensor, "batch head token width"], Float[Tensor, "batch head token"]]:
    """The same by plain matrix products, with what fused kernels refuse: soft cap, bias and any mask.

    Scores are soft-capped first, then biased, then masked. Softmax runs in float32 or better. A token that sees
    no key at all gets output 0 and log-sum-exp -inf, which `join_attention` gives no weight.
    """
    dtype = value.dtype
    # The log-sum-exp decides how much weight the prefix gets: three digits of bfloat16 would shift the whole output.
    query, key, value = multipliable(query, key, value)
    scores = (query @ key.mT).to(torch.promote_types(query.dtype, torch.float32)) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if visible is not None:
        scores = scores.masked_fill(~visible, -math.inf)
    # A row of -inf has log-sum-exp -inf, and -inf - -inf is nan: 0 in its place makes every weight exp(-inf) = 0.
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - lse.unsqueeze(-1).nan_to_num(neginf=0.0))
    return (weights.to(value.dtype) @ value).to(dtype), lse
