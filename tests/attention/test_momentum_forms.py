"""Each form of momentum, with η of its own and gates, against a double loop in float64."""

import math

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lightning_icl.attention.momentum import MomentumAttention, momentum_attention
from lightning_icl.errors import UserError

BATCH, HEADS, KV_HEADS, WIDTH = 2, 4, 2, 3
FORMS = ("sum", "mean", "previous")
RATES = torch.tensor([0.9, 0.4], dtype=torch.float64)
GATES = torch.tensor([0.5, -1.5, 0.0, 2.0], dtype=torch.float64)


def states(tokens: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(BATCH, heads, tokens, WIDTH, dtype=dtype) for heads in (HEADS, KV_HEADS, KV_HEADS)]


def weight_of(form: str, eta: float, ago: int) -> float:
    """What a token `ago` before contributes."""
    if form == "previous":
        return float(ago == 1)
    return eta**ago / (sum(eta**far for far in range(1, 5000)) if form == "mean" else 1.0)


def looped(form: str, query: Tensor, key: Tensor, value: Tensor, etas: Tensor, gates: Tensor) -> Tensor:
    """Attention of a whole sequence and the weighted values before each token, one by one, in float64."""
    key, value = (part.double().repeat_interleave(HEADS // KV_HEADS, 1) for part in (key, value))
    scores = query.double() @ key.mT / math.sqrt(WIDTH)
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    out = scores.masked_fill(later, -math.inf).softmax(-1) @ value
    for head in range(HEADS):
        eta = float(etas[head * len(etas) // HEADS])
        for t in range(value.shape[2]):
            for i in range(t):
                out[:, head, t] += float(gates[head]) * weight_of(form, eta, t - i) * value[:, head, i]
    return out


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [1, 2, 66])
def test_every_form_equals_a_double_loop(form: str, tokens: int) -> None:
    parts = states(tokens)
    for rates, gates in ((torch.full((1,), 0.7), torch.ones(HEADS)), (RATES, GATES)):
        got = momentum_attention(*parts, rates.double(), form=form, gate=gates.float())
        expected = looped(form, *parts, rates, gates)
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(got.double(), expected, atol=1e-6 * size, rtol=0)
    exact = [part.double() for part in parts]
    got = momentum_attention(*exact, RATES, form=form, gate=GATES)
    torch.testing.assert_close(got, looped(form, *parts, RATES, GATES), atol=1e-12, rtol=1e-12)


def test_rates_of_query_heads_and_gates_of_value_heads_go_together() -> None:
    parts, rates = states(9, torch.float64), torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    gates = torch.tensor([0.3, 2.0], dtype=torch.float64)
    got = momentum_attention(*parts, rates, form="mean", gate=gates)
    torch.testing.assert_close(got, looped("mean", *parts, rates, gates.repeat_interleave(2)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gate_of_zero_is_plain_attention_to_the_bit(form: str, dtype: torch.dtype) -> None:
    query, key, value = (part.to(dtype) for part in states(70))
    plain = scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), is_causal=True
    )
    assert torch.equal(momentum_attention(query, key, value, form=form, gate=torch.zeros(HEADS)), plain)
    assert torch.equal(MomentumAttention(HEADS, form=form, gate_init=0.0)(query, key, value), plain)


@pytest.mark.parametrize("form", FORMS)
def test_step_by_step_equals_the_full_pass(form: str) -> None:
    query, key, value = states(130)
    settings = {"form": form, "gate": GATES.float()}
    full = momentum_attention(query, key, value, RATES, **settings)
    for t in range(130):
        step = momentum_attention(query[:, :, [t]], key[:, :, : t + 1], value[:, :, : t + 1], RATES, **settings)
        torch.testing.assert_close(step, full[:, :, [t]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_adds_nothing(form: str, side: str) -> None:
    parts, settings = states(66), {"form": form, "gate": GATES.float()}
    wide = [torch.full((*part.shape[:2], 90, WIDTH), 7.0) for part in parts]
    place = slice(24, 90) if side == "left" else slice(0, 66)
    mask = torch.zeros(BATCH, 90, dtype=torch.bool)
    mask[:, place] = True
    for whole, part in zip(wide, parts, strict=True):
        whole[:, :, place] = part
    got = momentum_attention(*wide, RATES, padding_mask=mask, **settings)[:, :, place]
    torch.testing.assert_close(got, momentum_attention(*parts, RATES, **settings), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_packed_documents_equal_the_documents_alone(form: str) -> None:
    lengths, settings = (3, 70, 1, 20), {"form": form, "gate": GATES.float()}
    documents = [states(n) for n in lengths]
    packed = [torch.cat(parts, 2) for parts in zip(*documents, strict=True)]
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(BATCH, -1)
    got = momentum_attention(*packed, RATES, position_ids=positions, **settings).split(lengths, 2)
    for part, parts in zip(got, documents, strict=True):
        torch.testing.assert_close(part, momentum_attention(*parts, RATES, **settings), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_values_rate_and_gate(form: str) -> None:
    parts = [part.requires_grad_() for part in states(5, torch.float64)]
    rates = RATES.clone().requires_grad_(form != "previous")
    gates = GATES.clone().requires_grad_()

    def attend(query: Tensor, key: Tensor, value: Tensor, eta: Tensor, gate: Tensor) -> Tensor:
        return momentum_attention(query, key, value, eta, form=form, gate=gate)

    assert torch.autograd.gradcheck(attend, (*parts, rates, gates))


def test_a_mean_of_what_stays_the_same_tends_to_it() -> None:
    query, key, value = states(400, torch.float64)
    value = value[:, :, :1].expand_as(value)
    added = momentum_attention(query, key, value, RATES, form="mean") - value.repeat_interleave(2, 1)
    torch.testing.assert_close(added[:, :, -1], value[:, :, -1].repeat_interleave(2, 1), atol=1e-9, rtol=0)


def test_the_value_before_survives_the_smallest_types() -> None:
    query, key, value = (part.half() * 1e-3 for part in states(9))
    none = momentum_attention(query, key, value, form="previous", gate=0.0)
    added = momentum_attention(query, key, value, form="previous") - none
    torch.testing.assert_close(added[:, :, 1:], value[:, :, :-1].repeat_interleave(2, 1), atol=3e-6, rtol=0)
    assert not added[:, :, 0].any()


def test_the_module_learns_gates_from_their_first_value_on() -> None:
    query, key, value = states(9)
    module = MomentumAttention(HEADS, 0.8, learn=True, form="mean", gate_init=0.0)
    module(query, key, value).square().sum().backward()
    assert module.gate.grad.ne(0).all()
    assert not module.logit.grad.any()  # a closed gate hides η until it opens
    assert {name for name, _ in module.named_parameters()} == {"gate", "logit"}


def test_settings_that_cannot_be_are_named() -> None:
    jaxtyping.config.update("jaxtyping_disable", True)  # as in use, where annotations are not checked first
    try:
        with pytest.raises(UserError, match=r"no form 'maen'. Did you mean 'mean'"):
            MomentumAttention(HEADS, form="maen")
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    with pytest.raises(UserError, match=r"gate has shape \(3,\)"):
        momentum_attention(*states(5), 0.9, gate=torch.ones(3))
