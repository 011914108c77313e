"""The rungs of the ladder against derivatives by autograd and sums by loops, in float64."""

import math

import pytest
import torch
from torch import Tensor

from lightning_icl.attention.ladder import SecondOrder, SharedTokens, climb, second_order
from lightning_icl.attention.prefix import join_attention

BATCH, HEADS, KV_HEADS, TOKENS, PREFIX, WIDTH, SCALING = 2, 4, 2, 3, 7, 5, 0.4
FORMS = pytest.mark.parametrize("form", ["plain", "soft cap", "bias"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def demonstrated(form: str = "plain", tokens: int = PREFIX) -> SharedTokens:
    return SharedTokens(
        key=2 * normal(1, KV_HEADS, tokens, WIDTH),
        value=normal(1, KV_HEADS, tokens, WIDTH, seed=1),
        scaling=SCALING,
        softcap=1.5 if form == "soft cap" else None,
        bias=normal(HEADS, tokens, seed=2) if form == "bias" else None,
    )


def output_and_log_mass(demonstrations: SharedTokens, head: int, query: Tensor) -> tuple[Tensor, Tensor]:
    """N / Z and log Z of one head and one query, token by token."""
    kv_head = head // (HEADS // KV_HEADS)
    total, mass = torch.zeros(WIDTH, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for token in range(demonstrations.key.shape[2]):
        score = demonstrations.scaling * demonstrations.key[0, kv_head, token] @ query
        if demonstrations.softcap is not None:
            score = demonstrations.softcap * torch.tanh(score / demonstrations.softcap)
        if demonstrations.bias is not None:
            score = score + demonstrations.bias[head, token]
        total, mass = total + score.exp() * demonstrations.value[0, kv_head, token], mass + score.exp()
    return total / mass, mass.log()


def expanded(
    demonstrations: SharedTokens, head: int, point: Tensor, moved: Tensor, order: int
) -> tuple[Tensor, Tensor]:
    """Taylor polynomials of N / Z and log Z about the point, their derivatives by automatic differentiation."""
    results = []
    for part in (0, 1):
        size = WIDTH if part == 0 else 1

        def entry(query: Tensor, number: int, part: int = part) -> Tensor:
            return output_and_log_mass(demonstrations, head, query)[part].reshape(-1)[number]

        values = []
        for number in range(size):
            value = entry(point, number)
            if order > 0:
                value = value + torch.autograd.functional.jacobian(lambda q, n=number: entry(q, n), point) @ moved
            if order > 1:
                bend = torch.autograd.functional.hessian(lambda q, n=number: entry(q, n), point)
                value = value + moved @ bend @ moved / 2
            values.append(value)
        results.append(torch.stack(values))
    return results[0], results[1][0]


POINT, QUERY = normal(HEADS, WIDTH, seed=3), normal(BATCH, HEADS, TOKENS, WIDTH, seed=4)
OWN, OWN_LSE = normal(BATCH, HEADS, TOKENS, WIDTH, seed=5), normal(BATCH, HEADS, TOKENS, seed=6)
FACTOR = normal(HEADS, seed=7)


def softmax(demonstrations: SharedTokens, query: Tensor) -> Tensor:
    """Attention to demonstrations and own tokens as it is."""
    rows, tokens = query.shape[0], query.shape[2]
    return join_attention(OWN[:rows, :, :tokens], OWN_LSE[:rows, :, :tokens], *demonstrations.attend(query))


@FORMS
@pytest.mark.parametrize(
    ("rung", "order", "mass_order"),
    [("constant", 0, 0), ("constant-mass", 0, 1), ("affine", 1, 1), ("quadratic", 2, 2)],
)
def test_a_rung_is_the_taylor_polynomial_of_attention(form: str, rung: str, order: int, mass_order: int) -> None:
    demonstrations = demonstrated(form)
    out, lse = climb(demonstrations, POINT, FACTOR)[rung].attend(QUERY)
    for row in range(BATCH):
        for head in range(HEADS):
            moved = QUERY[row, head, 1] - POINT[head]
            expected, _ = expanded(demonstrations, head, POINT[head], moved, order)
            _, mass = expanded(demonstrations, head, POINT[head], moved, mass_order)
            torch.testing.assert_close(out[row, head, 1], expected, atol=1e-10, rtol=1e-10)
            torch.testing.assert_close(lse[row, head, 1], mass, atol=1e-10, rtol=1e-10)


def test_the_matrix_is_the_jacobian_and_has_no_more_ranks_than_there_are_tokens() -> None:
    demonstrations = demonstrated(tokens=3)
    update = second_order(demonstrations, POINT).first
    for head in range(HEADS):
        jacobian = torch.autograd.functional.jacobian(
            lambda query, head=head: output_and_log_mass(demonstrations, head, query)[0], POINT[head]
        )
        torch.testing.assert_close(update.matrix[head], jacobian)
    assert (torch.linalg.matrix_rank(update.matrix) == 2).all()  # centring takes one rank of three


@FORMS
def test_with_one_token_an_exponential_mass_is_exact_without_a_soft_cap(form: str) -> None:
    demonstrations = demonstrated(form, tokens=1)
    rungs, exact = climb(demonstrations, POINT, FACTOR), softmax(demonstrations, QUERY)
    for rung in ("constant-mass", "affine", "quadratic"):
        same = torch.allclose(rungs[rung].join(QUERY, OWN, OWN_LSE), exact, rtol=0, atol=1e-12)
        assert same == (form != "soft cap"), rung
    assert not torch.allclose(rungs["constant"].join(QUERY, OWN, OWN_LSE), exact, atol=1e-3)


@FORMS
def test_about_the_query_itself_every_rung_from_constant_up_is_softmax_attention(form: str) -> None:
    demonstrations, query = demonstrated(form), QUERY[:1, :, :1]
    rungs = climb(demonstrations, query[0, :, 0], FACTOR)
    exact = softmax(demonstrations, query)
    for rung in ("constant", "constant-mass", "affine", "quadratic"):
        torch.testing.assert_close(rungs[rung].join(query, OWN[:1, :, :1], OWN_LSE[:1, :, :1]), exact)
    assert not torch.allclose(rungs["linear"].join(query, OWN[:1, :, :1], OWN_LSE[:1, :, :1]), exact)


@FORMS
def test_errors_fall_in_order_as_the_query_nears_the_point(form: str) -> None:
    demonstrations, direction = demonstrated(form), normal(1, HEADS, 1, WIDTH, seed=8)
    rungs = climb(demonstrations, POINT, FACTOR)
    errors = {}
    for distance in (0.02, 0.01):
        query = POINT[None, :, None] + distance * direction
        exact = softmax(demonstrations, query)
        for rung, update in rungs.items():
            errors[rung, distance] = float((update.join(query, OWN[:1, :, :1], OWN_LSE[:1, :, :1]) - exact).norm())
    for rung, order in (("constant", 1), ("constant-mass", 1), ("affine", 2), ("quadratic", 3)):
        assert math.log2(errors[rung, 0.02] / errors[rung, 0.01]) == pytest.approx(order, abs=0.1), rung
    assert errors["quadratic", 0.01] < errors["affine", 0.01] < errors["constant", 0.01]


def test_the_linear_rung_is_the_sum_of_outer_products_on_the_query() -> None:
    demonstrations = demonstrated()
    rungs = climb(demonstrations, POINT, FACTOR)
    for head in range(HEADS):
        kv_head, total = head // (HEADS // KV_HEADS), torch.zeros(WIDTH, dtype=torch.float64)
        for token in range(PREFIX):
            score = demonstrations.key[0, kv_head, token] @ QUERY[1, head, 2]
            total += score * demonstrations.value[0, kv_head, token]
        for rung, factor in (("linear", FACTOR[head]), ("linear-raw", 1.0)):
            found = rungs[rung].join(QUERY, OWN, OWN_LSE)[1, head, 2]
            torch.testing.assert_close(found, OWN[1, head, 2] + factor * total)
    assert torch.equal(rungs["none"].join(QUERY, OWN, OWN_LSE), OWN)


def test_queries_in_pieces_are_the_same_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = second_order(demonstrated(), POINT)
    expected = whole.attend(QUERY)
    monkeypatch.setattr("lightning_icl.attention.ladder._PIECE", {"cpu": 1})
    for found, wanted in zip(whole.attend(QUERY), expected, strict=True):
        assert torch.equal(found, wanted)


def test_half_precision_is_expanded_in_double_and_kept_in_single() -> None:
    exact = demonstrated()
    half = SharedTokens(key=exact.key.bfloat16(), value=exact.value.bfloat16(), scaling=SCALING)
    found: SecondOrder = second_order(half, POINT.bfloat16())
    wide = SharedTokens(key=half.key.double(), value=half.value.double(), scaling=SCALING)
    expected = second_order(wide, POINT.bfloat16().double())
    assert found.first.matrix.dtype == torch.float32
    torch.testing.assert_close(found.first.matrix.double(), expected.first.matrix, rtol=1e-6, atol=1e-6)
    out = found.join(QUERY.bfloat16(), OWN.bfloat16(), OWN_LSE.float())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(
        out.double(), join_attention(OWN, OWN_LSE, *expected.attend(QUERY)), rtol=0.05, atol=0.05
    )
