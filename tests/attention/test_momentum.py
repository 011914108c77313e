"""The moving average of values against a double loop in float64, and momentum attention against the formula."""

import itertools
import math
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor

from lightning_icl.attention.branches import branched_ema
from lightning_icl.attention.ema import ema_of_seen, value_ema
from lightning_icl.attention.momentum import MomentumAttention, momentum_attention
from lightning_icl.errors import UserError

BATCH, HEADS, KV_HEADS, WIDTH = 2, 4, 2, 3


def double_loop(value: Tensor, eta: float | Tensor) -> Tensor:
    """Σ_{i<t} η^{t−i} v_i of every token, in float64."""
    rates = torch.as_tensor(eta, dtype=torch.float64).expand(value.shape[1])
    out = torch.zeros_like(value, dtype=torch.float64)
    for t in range(value.shape[2]):
        for i in range(t):
            out[:, :, t] += (rates ** (t - i))[:, None] * value[:, :, i].double()
    return out


def states(tokens: int, heads: int = KV_HEADS, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(BATCH, heads, tokens, WIDTH, dtype=dtype)


def formula(query: Tensor, key: Tensor, value: Tensor, eta: float) -> Tensor:
    """MoAttn of one whole sequence in float64."""
    key, value = (part.double().repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    scores = query.double() @ key.mT / math.sqrt(query.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf).softmax(-1) @ value + double_loop(value, eta)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As in use, where annotations are not checked before a function's own checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("tokens", [1, 2, 17, 63, 64, 65, 127, 129, 193])
@pytest.mark.parametrize("eta", [0.3, 0.9, 0.99, "by head"])
def test_the_scan_equals_a_double_loop(tokens: int, eta: float | str) -> None:
    rate = torch.tensor([0.95, 0.5], dtype=torch.float64) if eta == "by head" else eta
    value = states(tokens)
    expected = double_loop(value, rate)
    for laid_out in (value, value.transpose(1, 2).contiguous().transpose(1, 2)):  # heads apart, and side by side
        ema, state = value_ema(laid_out, rate)
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(ema.double(), expected, atol=1e-6 * size, rtol=0)
        following = double_loop(torch.cat([value, value[:, :, :1]], 2), rate)[:, :, -1]
        torch.testing.assert_close(state.double(), following, atol=1e-6 * size, rtol=0)


def test_many_levels_of_chunks_equal_the_recurrence() -> None:
    value = states(64 * 64 + 5)
    state, expected = torch.zeros(BATCH, KV_HEADS, WIDTH, dtype=torch.float64), []
    for one in value.double().unbind(2):
        expected.append(state)
        state = 0.998 * (state + one)
    torch.testing.assert_close(value_ema(value, 0.998)[0].double(), torch.stack(expected, 2), atol=5e-5, rtol=0)


@pytest.mark.parametrize("eta", [1e-30, 1 - 1e-7])
def test_extreme_rates_stay_finite(eta: float) -> None:
    value = states(1000).requires_grad_()
    ema, state = value_ema(value, eta)
    ema.sum().backward()
    assert all(torch.isfinite(tensor).all() for tensor in (ema, state, value.grad))


@pytest.mark.parametrize("tokens", [1, 5, 66, 130])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("eta", [[0.7], [0.3, 0.9]])
def test_gradients_of_values_rate_and_state(tokens: int, masked: bool, eta: list[float]) -> None:
    value = torch.randn(BATCH, KV_HEADS, tokens, 1, dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(eta, dtype=torch.float64, requires_grad=True)
    state = torch.randn(BATCH, KV_HEADS, 1, dtype=torch.float64, requires_grad=True)
    flags = {
        "present": torch.rand(BATCH, tokens) > 0.3 if masked else None,
        "restart": torch.rand(BATCH, tokens) > 0.8 if masked else None,
    }
    inputs = (value, rate, state)
    assert torch.autograd.gradcheck(lambda v, e, s: value_ema(v, e, state=s, **flags), inputs, fast_mode=tokens > 5)


def test_attention_equals_the_formula_and_its_gradients_pass() -> None:
    query, key, value = (states(67, heads, torch.float64) for heads in (HEADS, KV_HEADS, KV_HEADS))
    out = momentum_attention(query, key, value, 0.8)
    torch.testing.assert_close(out, formula(query, key, value, 0.8), atol=1e-12, rtol=0)
    small = [part[:, :, :5].clone().requires_grad_() for part in (query, key, value)]
    rate = torch.tensor([0.4, 0.8], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(momentum_attention, (*small, rate))


def test_each_query_head_may_have_its_own_rate() -> None:
    query, key, value = (states(9, heads, torch.float64) for heads in (HEADS, KV_HEADS, KV_HEADS))
    rates = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    out = momentum_attention(query, key, value, rates)
    for head, rate in enumerate(rates.tolist()):
        alone = formula(query[:, [head]], key[:, [head // 2]], value[:, [head // 2]], rate)
        torch.testing.assert_close(out[:, [head]], alone, atol=1e-12, rtol=0)


def test_no_token_sees_a_later_one_or_its_own_value_in_the_average() -> None:
    value, place = states(140), 70
    changed = value.clone()
    changed[:, :, place] += 1
    before, after = value_ema(value, 0.9)[0], value_ema(changed, 0.9)[0]
    assert torch.equal(before[:, :, : place + 1], after[:, :, : place + 1])
    assert (before[:, :, place + 1 : place + 40] != after[:, :, place + 1 : place + 40]).all()
    query, key = states(140, HEADS), states(140)
    before, after = (momentum_attention(query, key, each, 0.9) for each in (value, changed))
    assert torch.equal(before[:, :, :place], after[:, :, :place])


def test_step_by_step_equals_the_full_pass() -> None:
    tokens = 300
    query, key, value = states(tokens, HEADS), states(tokens), states(tokens)
    full, (ema, last) = momentum_attention(query, key, value, 0.9), value_ema(value, 0.9)
    state = None
    for t in range(tokens):
        one, state = value_ema(value[:, :, t : t + 1], 0.9, state=state)
        torch.testing.assert_close(one, ema[:, :, t : t + 1], atol=1e-5, rtol=0)
        cached = (part[:, :, : t + 1] for part in (key, value))
        step = momentum_attention(query[:, :, t : t + 1], *cached, 0.9)
        torch.testing.assert_close(step, full[:, :, t : t + 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_the_sequences_alone(side: str) -> None:
    lengths, longest = (65, 130), 130
    rows = [[states(n, heads)[:1] for heads in (HEADS, KV_HEADS, KV_HEADS)] for n in lengths]
    padded = [torch.full((2, heads, longest, WIDTH), 7.0) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    mask = torch.zeros(2, longest, dtype=torch.bool)
    places = [slice(longest - n, longest) if side == "left" else slice(0, n) for n in lengths]
    for row, (parts, place) in enumerate(zip(rows, places, strict=True)):
        mask[row, place] = True
        for whole, part in zip(padded, parts, strict=True):
            whole[row, :, place] = part[0]
    out = momentum_attention(*padded, 0.9, padding_mask=mask)
    _, last = value_ema(padded[2], 0.9, present=mask)
    for row, (parts, place) in enumerate(zip(rows, places, strict=True)):
        torch.testing.assert_close(out[row, :, place], momentum_attention(*parts, 0.9)[0], atol=2e-6, rtol=0)
        torch.testing.assert_close(last[row], value_ema(parts[2], 0.9)[1][0], atol=2e-6, rtol=0)


def test_packed_documents_equal_the_documents_alone() -> None:
    lengths = (3, 70, 1, 64, 20)
    documents = [[states(n, heads)[:1] for heads in (HEADS, KV_HEADS, KV_HEADS)] for n in lengths]
    packed = [torch.cat(parts, 2) for parts in zip(*documents, strict=True)]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    out = momentum_attention(*packed, 0.9, position_ids=positions).split(lengths, 2)
    for got, parts in zip(out, documents, strict=True):
        torch.testing.assert_close(got, momentum_attention(*parts, 0.9), atol=2e-6, rtol=0)


def test_what_a_document_holds_never_reaches_the_next() -> None:
    value = states(10)
    value[:, :, :4] = 1e30
    restart = (torch.arange(10) == 4).expand(BATCH, -1)
    ema, _ = value_ema(value, 0.9, restart=restart)
    assert torch.equal(ema[:, :, 4:], value_ema(value[:, :, 4:], 0.9)[0])


def test_seen_keys_alone_give_the_average_of_a_token() -> None:
    value = states(40)
    seen = torch.rand(BATCH, 3, 40) > 0.4
    got = ema_of_seen(value, 0.8, seen)
    for row, token in itertools.product(range(BATCH), range(3)):
        kept = value[row, :, seen[row, token]][None]
        torch.testing.assert_close(got[row, :, token], double_loop(kept, 0.8)[0, :, -1].float(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("with_prefix", [False, True])
def test_branches_continue_from_prefix_and_prompt(with_prefix: bool) -> None:
    prefix, prompts, forks = states(11), (6, 4), ((2, 3), (5, 1))
    own = states(11)
    branches = torch.full((BATCH, 11), -1)
    for row, (prompt, lengths) in enumerate(zip(prompts, forks, strict=True)):
        branches[row, :prompt] = 0
        for number, start in ((1, prompt), (2, prompt + lengths[0])):
            branches[row, start : start + lengths[number - 1]] = number
    shared = prefix[:1] if with_prefix else prefix[:1, :, :0]
    state = value_ema(shared, 0.9)[1] if with_prefix else None
    got, _ = branched_ema(own, 0.9, state=state, branches=branches)
    for row, number in itertools.product(range(BATCH), (1, 2)):
        path = (branches[row] == 0) | (branches[row] == number)
        whole = torch.cat([shared[0], own[row, :, path]], 1)[None]
        expected = double_loop(whole, 0.9)[0, :, shared.shape[2] :].float()
        torch.testing.assert_close(got[row, :, path], expected, atol=3e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    value = (states(2000) + 1).to(dtype)
    ema, state = value_ema(value, 0.99)
    exact, exact_state = value_ema(value.double(), 0.99)
    assert state.dtype == torch.float32
    torch.testing.assert_close(state.double(), exact_state, atol=0, rtol=1e-5)
    torch.testing.assert_close(ema, exact.to(dtype), atol=0, rtol=torch.finfo(dtype).eps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = value_ema(value.float(), 0.99)
    torch.testing.assert_close(state.double(), exact_state, atol=0, rtol=1e-5)


def test_the_module_learns_the_rate_it_starts_from() -> None:
    query, key, value = states(9, HEADS), states(9), states(9)
    learning, fixed = MomentumAttention(KV_HEADS, 0.8, learn=True), MomentumAttention(KV_HEADS, 0.8)
    torch.testing.assert_close(learning(query, key, value), fixed(query, key, value))
    learning(query, key, value).square().sum().backward()
    assert learning.logit.grad.ne(0).all()
    assert not list(fixed.parameters())


@pytest.mark.parametrize("learnt", [-200.0, 200.0])
def test_a_learnt_rate_never_leaves_the_interval(learnt: float) -> None:
    module = MomentumAttention(KV_HEADS, learn=True)
    torch.nn.init.constant_(module.logit, learnt)
    assert ((module.eta > 0) & (module.eta < 1)).all()
    assert torch.isfinite(module(states(9, HEADS), states(9), states(9))).all()


@pytest.mark.parametrize("eta", [0.0, 1.0, -0.5, 2.0, math.nan, torch.tensor([0.5, 1.0])])
def test_a_rate_outside_the_interval_is_named(eta: float | Tensor) -> None:
    with pytest.raises(UserError, match=r"eta = .* strictly between 0 and 1"):
        value_ema(states(3), eta)
    if not isinstance(eta, Tensor):
        with pytest.raises(UserError, match="strictly between 0 and 1"):
            MomentumAttention(HEADS, eta)


@pytest.mark.usefixtures("unchecked")
def test_shapes_that_do_not_fit_are_named() -> None:
    query, key, value = states(5, HEADS), states(5), states(5)
    for parts, message in (
        ((query, key, value[:, :, :4]), "keys and values alike"),
        ((query[:, :3], key, value), "multiple"),
        ((query, key[:, :, :4], value[:, :, :4]), "its own key"),
    ):
        with pytest.raises(UserError, match=message):
            momentum_attention(*parts, 0.9)
    with pytest.raises(UserError, match=r"eta has shape \(3,\)"):
        momentum_attention(query, key, value, torch.full((3,), 0.5))
    with pytest.raises(UserError, match="padding_mask has shape"):
        momentum_attention(query, key, value, 0.9, padding_mask=torch.ones(BATCH, 4, dtype=torch.bool))
    with pytest.raises(UserError, match="state has shape"):
        value_ema(value, 0.9, state=torch.zeros(BATCH, KV_HEADS, WIDTH + 1))
