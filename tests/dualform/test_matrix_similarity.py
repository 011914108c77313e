"""Likeness of matrices against scipy and numpy, matrix by matrix in float64."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from lightning_icl.dualform.matrix_similarity import effective_rank, likeness


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_likeness_equals_scipy(rank: int) -> None:
    rng = np.random.default_rng(rank)
    one = rng.normal(size=(1, 2, 6, 6))  # one for all rows, as ΔW_ICL is
    other = 0.7 * one + rng.normal(size=(4, 2, 6, 6))
    found = likeness(torch.tensor(one), torch.tensor(other), rank)
    for row, head in np.ndindex(4, 2):
        a, b = one[0, head], other[row, head]
        (ua, sa, va), (ub, sb, vb) = np.linalg.svd(a), np.linalg.svd(b)
        assert found.cosine[row, head].item() == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
        assert found.norm_ratio[row, head].item() == pytest.approx(np.linalg.norm(b) / np.linalg.norm(a))
        for cosines, x, y in ((found.left, ua, ub), (found.right, va.T, vb.T)):
            expected = np.sort(np.cos(subspace_angles(x[:, :rank], y[:, :rank])))[::-1]
            np.testing.assert_allclose(cosines[row, head].numpy(), expected, atol=1e-7)
        for rank_, s in ((found.one_rank[0, head], sa), (found.other_rank[row, head], sb)):
            share = s / s.sum()
            assert rank_.item() == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_random_subspaces_overlap_by_rank_over_width() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(2, 400, 1, 16, 16, dtype=torch.float64)
    found = likeness(one, other, 4)
    assert found.left.square().mean().item() == pytest.approx(4 / 16, abs=0.01)
    assert found.right.square().mean().item() == pytest.approx(4 / 16, abs=0.01)


def test_a_zero_matrix_is_like_nothing() -> None:
    found = likeness(torch.eye(3)[None, None], torch.zeros(1, 1, 3, 3), 2)
    assert found.cosine.isnan().all()
    assert found.left.isnan().all()
    assert found.right.isnan().all()
    assert found.norm_ratio.item() == 0


def test_effective_rank_of_equal_directions_is_their_number() -> None:
    assert effective_rank(torch.tensor([3.0, 3.0, 3.0, 0.0])).item() == pytest.approx(3.0)
