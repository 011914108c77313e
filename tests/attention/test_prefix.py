"""Attention over prefix and own tokens apart, joined, equals attention over both in float64."""

import math

import pytest
import torch

from lightning_icl.attention.prefix import join_attention, own_attention, prefix_attention

BATCH, HEADS, TOKENS, PREFIX, WIDTH = 3, 4, 6, 11, 8


def reference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, softcap: float | None,
    window: int | None, bias: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """(B, H, T, D) attention to PREFIX + T keys by the formula, in float64."""
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, 1).double() for states in (key, value))
    scores = query.double() @ key.mT * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.double()[None, :, None]
    at = PREFIX + torch.arange(TOKENS)[:, None]
    seen = torch.arange(PREFIX + TOKENS) <= at
    if window is not None:
        seen &= at - torch.arange(PREFIX + TOKENS) < window
    return scores.masked_fill(~seen, -math.inf).softmax(-1) @ value


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 1, 4, 9, 14])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_joined_attention_is_exact(
    kv_heads: int, softcap: float | None, window: int | None, biased: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    query = 2 * torch.randn(BATCH, HEADS, TOKENS, WIDTH, dtype=dtype)
    shared = torch.randn(2, 1, kv_heads, PREFIX, WIDTH, dtype=dtype)
    own_states = torch.randn(2, BATCH, kv_heads, TOKENS, WIDTH, dtype=dtype)
    bias = torch.randn(HEADS, PREFIX + TOKENS, dtype=dtype) if biased else None
    positions = (PREFIX + torch.arange(TOKENS)).expand(BATCH, -1)
    visible = None
    if window is not None:
        visible = torch.ones(1, TOKENS, TOKENS, dtype=torch.bool).tril()
        visible = visible & (positions[..., None] - positions[:, None] < window)
    own, own_lse = own_attention(
        query, *own_states, scaling=0.3, softcap=softcap, visible=visible,
        bias=None if bias is None else bias[None, :, None, PREFIX:],
    )  # fmt: skip
    whole = (torch.cat([s.expand(BATCH, -1, -1, -1), o], 2) for s, o in zip(shared, own_states, strict=True))
    expected = reference(query, *whole, 0.3, softcap, window, bias)
    for span in (None, range(PREFIX, PREFIX + TOKENS), range(PREFIX + TOKENS + 2)):
        prefix, prefix_lse = prefix_attention(
            query, *shared, scaling=0.3, softcap=softcap, window=window, positions=positions, span=span,
            bias=None if bias is None else bias[:, :PREFIX],
        )  # fmt: skip
        joined = join_attention(own, own_lse, prefix, prefix_lse)
        torch.testing.assert_close(joined.double(), expected, atol=3e-6 if dtype == torch.float32 else 1e-12, rtol=0)


def test_a_prefix_out_of_reach_has_no_weight() -> None:
    own = torch.randn(1, 1, 1, 2)
    none = torch.full((1, 1, 1), -math.inf)
    assert torch.equal(join_attention(own, torch.zeros(1, 1, 1), torch.full_like(own, 7.0), none), own)
