"""The language-modelling loss keeps its digits however many tokens a vocabulary has, in every precision."""

import pytest
import torch

from lightning_icl.probing._loss import _PIECE, next_token_loss


def exact(logits: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """Token by token in float64, by the definition of the softmax."""
    shares = torch.stack([row.exp() / row.exp().sum() for row in logits.double()])
    return -sum(shares[place, token].log() for place, token in enumerate(following.tolist())) / len(following)


@pytest.mark.parametrize("vocabulary", [7, 262_144])
@pytest.mark.parametrize("spread", [1.0, 5.0])
def test_loss_and_gradient_equal_float64_for_vocabularies_of_any_size(vocabulary: int, spread: float) -> None:
    drawn = torch.Generator().manual_seed(vocabulary)
    logits = (spread * torch.randn(6, vocabulary, generator=drawn)).requires_grad_()
    ids = torch.randint(vocabulary, (6,), generator=drawn)
    wide = logits.detach().double().requires_grad_()
    loss, reference = next_token_loss(logits, ids), exact(wide, ids)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference.item(), rel=3e-7)
    loss.backward()
    reference.backward()
    error = torch.linalg.vector_norm(logits.grad - wide.grad) / torch.linalg.vector_norm(wide.grad)
    assert error < 5e-7


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, ids = torch.randn(9, 11, generator=torch.Generator().manual_seed(0)), torch.arange(9)
    whole = next_token_loss(logits, ids)
    monkeypatch.setitem(_PIECE, "cpu", 25)
    assert torch.equal(next_token_loss(logits, ids), whole)


def test_gradient_of_a_weighted_sum_of_losses_is_that_sum_of_gradients() -> None:
    logits = torch.randn(9, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids = torch.arange(9)
    (whole,) = torch.autograd.grad(next_token_loss(logits, ids), logits)
    (third,) = torch.autograd.grad(next_token_loss(logits, ids) / 3, logits)
    torch.testing.assert_close(third, whole / 3)


def test_half_precision_logits_are_summed_in_float32_and_double_ones_in_float64() -> None:
    logits, ids = torch.randn(5, 4096, generator=torch.Generator().manual_seed(1)).bfloat16(), torch.arange(5)
    assert next_token_loss(logits, ids).item() == pytest.approx(exact(logits, ids).item(), rel=1e-6)
    assert next_token_loss(logits.double(), ids).item() == pytest.approx(exact(logits, ids).item(), rel=1e-14)
