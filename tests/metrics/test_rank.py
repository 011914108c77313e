"""Kendall's tau-b against scipy, with ties, with hidden items, and at sizes where counting goes over several blocks."""

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor

from lightning_icl.metrics.rank import inversions, kendall_tau, tie_ranks


def tau(x: Tensor, y: Tensor, visible: Tensor | None = None) -> Tensor:
    return kendall_tau(tie_ranks(x, visible), tie_ranks(y, visible), visible)


@pytest.mark.parametrize("items", [2, 3, 17, 64, 65, 300])
@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_tau_equals_scipy(items: int, decimals: int) -> None:
    rng = np.random.default_rng(items)
    x = rng.normal(size=(20, items)).round(decimals)
    y = (0.5 * x + rng.normal(size=(20, items))).round(decimals)
    expected = [kendalltau(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(tau(torch.tensor(x), torch.tensor(y)).numpy(), expected, atol=1e-12)


def test_tau_equals_scipy_where_two_ranks_need_more_than_32_bits() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1, 70_000)).round(4)
    y = (x + rng.normal(size=x.shape)).round(4)
    expected = kendalltau(x[0], y[0]).statistic
    assert tau(torch.tensor(x), torch.tensor(y)).item() == pytest.approx(expected, abs=1e-12)


def test_tau_of_visible_items_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30, 50)).round(1)
    visible = rng.random((30, 50)) < 0.5
    expected = [kendalltau(a[v], b[v]).statistic for a, b, v in zip(x, y, visible, strict=True)]
    found = tau(torch.tensor(x), torch.tensor(y), torch.tensor(visible))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_inversions_equal_the_double_loop() -> None:
    rng = np.random.default_rng(1)
    rows = np.stack([rng.permutation(23) for _ in range(10)])
    expected = [sum(row[i] > row[j] for i in range(23) for j in range(i + 1, 23)) for row in rows]
    assert inversions(torch.tensor(rows)).tolist() == expected


@pytest.mark.parametrize("items", [1, 2, 256, 257, 70_000])
def test_inversions_of_rows_in_descending_and_half_turned_order(items: int) -> None:
    ascending = torch.arange(items)
    found = inversions(torch.stack([ascending.flip(0), ascending.roll(items // 2), ascending]))
    assert found.tolist() == [items * (items - 1) // 2, (items // 2) * (items - items // 2), 0]


def test_one_rank_only_is_undefined() -> None:
    assert torch.isnan(tau(torch.ones(1, 5), torch.arange(5.0)[None])).all()
    assert torch.isnan(tau(torch.ones(1, 1), torch.ones(1, 1))).all()


def test_scores_within_the_resolution_are_tied() -> None:
    scores = torch.tensor([[1.0, 1.0 + 1e-7, 0.5, 2.0]])
    assert tie_ranks(scores).tolist() == [[1, 2, 0, 3]]
    assert tie_ranks(scores, resolution=1e-6).tolist() == [[1, 1, 0, 3]]
