"""The unembedding in pieces is the same product with the same gradient, and learns where it is trained."""

import pytest
import torch
from torch import Tensor, nn

from lightning_icl.models import _fast_paths
from lightning_icl.models._fast_paths import head_in_pieces


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> nn.Linear:
    """Some rows in each of many pieces, the last of them incomplete."""
    monkeypatch.setattr(_fast_paths, "_HEAD", 50)
    torch.manual_seed(0)
    return nn.Linear(8, 101, bias=False, dtype=torch.float64)


def loss_of(head: nn.Linear, states: Tensor) -> Tensor:
    return head(states).square().sum()


def test_head_in_pieces_is_the_same_product_with_the_same_gradient(head: nn.Linear) -> None:
    head.requires_grad_(False)
    states = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    whole = head(states)
    (expected,) = torch.autograd.grad(loss_of(head, states), states)
    with head_in_pieces(head):
        torch.testing.assert_close(head(states), whole, rtol=0, atol=1e-12)
        (found,) = torch.autograd.grad(loss_of(head, states), states)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_head_that_is_trained_gets_its_gradient(head: nn.Linear) -> None:
    states = torch.randn(4, 8, dtype=torch.float64)
    (expected,) = torch.autograd.grad(loss_of(head, states), head.weight)
    with head_in_pieces(head):
        (found,) = torch.autograd.grad(loss_of(head, states), head.weight)
    torch.testing.assert_close(found, expected)
