"""What each demonstration adds to the affine rung's matrix, for every form of score, token by token."""

import pytest
import torch
from torch import Tensor

from lightning_icl.attention.ladder import SharedTokens, second_order
from lightning_icl.weightupdate._shares import affine_parts, shares

HEADS, KV_HEADS, WIDTH, OWNERS = 4, 2, 5, (0, 0, 1, 1, 1, 2)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("form", ["plain", "soft cap", "bias"])
def test_parts_are_sums_over_a_demonstrations_tokens_and_add_up_to_the_matrix(form: str) -> None:
    tokens = SharedTokens(
        key=2 * normal(1, KV_HEADS, len(OWNERS), WIDTH, seed=0),
        value=normal(1, KV_HEADS, len(OWNERS), WIDTH, seed=1),
        scaling=0.4,
        softcap=1.5 if form == "soft cap" else None,
        bias=normal(HEADS, len(OWNERS), seed=2) if form == "bias" else None,
    )
    point = normal(HEADS, WIDTH, seed=3)
    parts = affine_parts(second_order(tokens, point), OWNERS)
    for head in range(HEADS):
        key, value = (states[0, head // 2] for states in (tokens.key, tokens.value))

        def scores(query: Tensor, head: int = head, key: Tensor = key) -> Tensor:
            raw = tokens.scaling * key @ query
            bent = raw if tokens.softcap is None else tokens.softcap * torch.tanh(raw / tokens.softcap)
            return bent if tokens.bias is None else bent + tokens.bias[head]

        weight = scores(point[head]).softmax(-1)
        moves = torch.autograd.functional.jacobian(scores, point[head])
        expected = torch.zeros(3, WIDTH, WIDTH, dtype=torch.float64)
        for token, owner in enumerate(OWNERS):
            centred = value[token] - weight @ value, moves[token] - weight @ moves
            expected[owner] += weight[token] * torch.outer(*centred)
        torch.testing.assert_close(parts[:, head], expected)
    torch.testing.assert_close(parts.sum(0), second_order(tokens, point).first.jacobian)
    assert float(shares(parts).sum()) == pytest.approx(1)


def test_an_update_of_nothing_has_no_shares() -> None:
    assert shares(torch.zeros(2, 1, 3, 3)).isnan().all()
