"""The implicit patch: the patch really made, in float64."""

import pytest
import torch

from lightning_icl.dualform._implicit_patch import compare_patches, implicit_patch


def test_the_patched_matrix_without_context_acts_as_the_matrix_with_it() -> None:
    torch.manual_seed(0)
    weight, bare, moved = (torch.randn(*shape, dtype=torch.float64) for shape in ((7, 4), (3, 4), (3, 4)))
    patch = implicit_patch(weight, bare, moved)
    for row in range(3):
        torch.testing.assert_close((weight + patch[row]) @ bare[row], weight @ moved[row])
        assert torch.linalg.matrix_rank(patch[row]).item() == 1


def test_patches_are_compared_as_matrices() -> None:
    torch.manual_seed(1)
    weight, bare, icl, ft = (torch.randn(*shape, dtype=torch.float64) for shape in ((7, 4), (3, 4), (3, 4), (3, 4)))
    found = compare_patches(weight, bare, icl, ft, (ft - bare).roll(1, 0))
    one, other = implicit_patch(weight, bare, icl), implicit_patch(weight, bare, ft)
    for row in range(3):
        a, b = one[row], other[row]
        assert found.cosine[row].item() == pytest.approx(float((a * b).sum() / a.norm() / b.norm()))
        here, there = weight @ (icl - bare)[row], weight @ (ft - bare)[row - 1]
        assert found.other_cosine[row].item() == pytest.approx(float(here @ there / here.norm() / there.norm()))
        assert found.icl_size[row].item() == pytest.approx(float(a.norm() / weight.norm()))
        assert found.ft_size[row].item() == pytest.approx(float(b.norm() / weight.norm()))
    assert found.identity_error.max() < 1e-14


def test_no_context_is_no_patch() -> None:
    weight, bare = torch.randn(5, 4), torch.randn(2, 4)
    found = compare_patches(weight, bare, bare, bare + 1, torch.full_like(bare, torch.nan))
    assert found.icl_size.tolist() == [0.0, 0.0]
    assert found.cosine.isnan().all()
    rounded = bare * (1 + 1e-7)
    assert compare_patches(weight, bare, rounded, bare + 1, bare).cosine.isnan().all()
    assert compare_patches(weight, bare, rounded, bare + 1, bare).other_cosine.isnan().all()
