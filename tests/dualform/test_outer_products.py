"""The dual form against loops in float64, and the identities it stands on."""

import math

import pytest
import torch

from lightning_icl.dualform._outer_products import (
    apply_matrix,
    demonstration_shares,
    finetuning_update,
    first_order_attention,
    linear_attention,
    token_sums,
)

BATCH, HEADS, KV_HEADS, TOKENS, WIDTH = 3, 4, 2, 9, 5


@pytest.fixture
def states() -> tuple[torch.Tensor, ...]:
    """Query (B, H, D), keys and values (B, K, T, D), and which tokens are visible."""
    torch.manual_seed(0)
    key, value = torch.randn(2, BATCH, KV_HEADS, TOKENS, WIDTH, dtype=torch.float64)
    visible = torch.rand(BATCH, TOKENS) < 0.6
    visible[:, 0] = True
    return torch.randn(BATCH, HEADS, WIDTH, dtype=torch.float64), key, value, visible


def test_the_matrix_at_a_query_is_the_sum_over_tokens(states: tuple[torch.Tensor, ...]) -> None:
    query, key, value, visible = states
    found = 0.3 * apply_matrix(token_sums(key, value, visible).outer, query)
    expected = torch.zeros_like(query)
    for row in range(BATCH):
        for head in range(HEADS):
            shared = head // (HEADS // KV_HEADS)
            for token in range(TOKENS):
                if visible[row, token]:
                    score = 0.3 * float(key[row, shared, token] @ query[row, head])
                    expected[row, head] += score * value[row, shared, token]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    by_scores = linear_attention(query, key, value, scaling=0.3, visible=visible)
    torch.testing.assert_close(by_scores, expected, rtol=0, atol=1e-12)


def test_disjoint_tokens_add_up(states: tuple[torch.Tensor, ...]) -> None:
    _, key, value, visible = states
    shared = token_sums(key[:1, :, :4], value[:1, :, :4])  # one prefix for all rows
    own = token_sums(key[:, :, 4:], value[:, :, 4:], visible[:, 4:])
    both = shared + own
    for row in range(BATCH):
        keys = torch.cat([key[0, :, :4], key[row, :, 4:][:, visible[row, 4:]]], 1)
        values = torch.cat([value[0, :, :4], value[row, :, 4:][:, visible[row, 4:]]], 1)
        torch.testing.assert_close(both.outer[row], values.mT @ keys)
        torch.testing.assert_close(both.key[row], keys.sum(1))
        torch.testing.assert_close(both.value[row], values.sum(1))
        assert both.count[row].item() == keys.shape[1]


def test_first_order_attention_errs_by_the_square_of_the_scores(states: tuple[torch.Tensor, ...]) -> None:
    query, key, value, visible = states
    sums, errors = token_sums(key, value, visible), []
    for scaling in (1e-2, 1e-3):
        scores = torch.einsum("bhd,bhtd->bht", query, key.repeat_interleave(2, 1)) * scaling
        weights = scores.masked_fill(~visible[:, None], -math.inf).softmax(-1)
        softmax = weights[:, :, None] @ value.repeat_interleave(2, 1)
        errors.append((first_order_attention(query, sums, scaling=scaling) - softmax[:, :, 0]).abs().max())
    assert errors[1] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)


def test_the_fine_tuning_update_is_the_relaxed_form(states: tuple[torch.Tensor, ...]) -> None:
    """(W_V + ΔW_V) X Xᵀ (W_K + ΔW_K)ᵀ − W_V X Xᵀ W_Kᵀ, token by token."""
    _, _, _, visible = states
    inputs = torch.randn(BATCH, TOKENS, 7, dtype=torch.float64)
    w_k, w_v = torch.randn(2, WIDTH, 7, dtype=torch.float64)
    d_k, d_v = 1e-3 * torch.randn(2, WIDTH, 7, dtype=torch.float64)
    keys, values, tuned_keys, tuned_values = (
        (inputs @ weight.mT)[:, None] for weight in (w_k, w_v, w_k + d_k, w_v + d_v)
    )
    found = finetuning_update(keys, values, tuned_keys, tuned_values, visible)
    for row in range(BATCH):
        expected = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
        for token in range(TOKENS):
            if visible[row, token]:
                outer = torch.outer(inputs[row, token], inputs[row, token])
                expected += (w_v + d_v) @ outer @ (w_k + d_k).mT - w_v @ outer @ w_k.mT
        torch.testing.assert_close(found[row, 0], expected, rtol=0, atol=1e-12)


def test_a_tiny_update_does_not_drown_in_float32() -> None:
    torch.manual_seed(0)
    key, value = torch.randn(2, 1, 1, 200, WIDTH)
    moved = 1e-6 * torch.randn(2, 1, 1, 200, WIDTH)
    tuned_key, tuned_value = key + moved[0], value + moved[1]
    exact = tuned_value.double().mT @ tuned_key.double() - value.double().mT @ key.double()
    found = finetuning_update(key, value, tuned_key, tuned_value)
    assert torch.linalg.matrix_norm(found - exact) / torch.linalg.matrix_norm(exact) < 1e-5


@pytest.mark.parametrize("cut", [False, True])
def test_shares_are_of_each_demonstration_and_sum_to_one(cut: bool, states: tuple[torch.Tensor, ...]) -> None:
    _, key, value, visible = states
    example = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    shares = demonstration_shares(key[:1], value[:1], example, visible if cut else None)
    torch.testing.assert_close(shares.projection.sum(-1), torch.ones_like(shares.projection[..., 0]))
    row, head, number = (1, 1, 2) if cut else (0, 1, 2)
    seen = visible[1] if cut else torch.ones(TOKENS, dtype=torch.bool)
    whole, part = (
        value[0, head, tokens].mT @ key[0, head, tokens] for tokens in (seen, seen & (example == number))
    )  # fmt: skip
    assert shares.projection[row, head, number].item() == pytest.approx(float((part * whole).sum() / (whole**2).sum()))
    assert shares.norm[row, head, number].item() == pytest.approx(float(part.norm() / whole.norm()))


def test_shares_of_nothing_are_undefined() -> None:
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    shares = demonstration_shares(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2), torch.tensor([0, 1, 1]), nothing)
    assert shares.projection.isnan().all()
    assert shares.norm.isnan().all()
