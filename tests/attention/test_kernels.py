"""Which kernel attends: one that a device has for the type of its numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_icl.attention import kernels
from lightning_icl.attention.kernels import _cuda_fused, attention_with_lse, masked_attention_with_lse


class Operations(TorchDispatchMode):
    """Names of all operations that are carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_on_cuda_float64_takes_matrix_products_since_the_fused_kernels_refuse_it() -> None:
    # Fake tensors stand on a device that need not be there.
    with FakeTensorMode(), Operations() as operations:
        query, key, value = (torch.empty(1, 2, 16, 8, device="cuda", dtype=torch.float64) for _ in range(3))
        output, lse = attention_with_lse(query, key, value, scaling=0.3, causal=False)
    assert (output.dtype, output.shape, lse.shape) == (torch.float64, query.shape, query.shape[:3])
    assert "bmm.default" in operations.names
    assert not [name for name in operations.names if "scaled_dot_product" in name]


@pytest.mark.parametrize(
    ("dtype", "width", "kernel", "taken"),
    [
        (torch.bfloat16, 20, "flash", 24),
        (torch.float16, 64, "flash", 64),
        (torch.bfloat16, 300, "efficient", 304),
        (torch.float32, 20, "efficient", 20),
        (torch.float32, 18, "efficient", 20),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
def test_heads_of_any_width_reach_cudas_kernels_in_widths_that_they_take(
    dtype: torch.dtype, width: int, kernel: str, taken: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = []

    def products(query: Tensor, key: Tensor, value: Tensor, *flags: object, scale: float) -> tuple[Tensor, Tensor]:
        widths.append(query.shape[3])
        # Flash takes dropout, causality and a debugging mask; the other one a bias, whether to give the log-sum-exp,
        # dropout and causality.
        assert flags == ((0.0, causal, False) if kernel == "flash" else (None, True, 0.0, causal))
        visible = torch.ones(1, 1, 16, 16, dtype=torch.bool)
        return masked_attention_with_lse(
            query, key, value, scaling=scale, visible=visible.tril() if causal else visible
        )

    # The kernel of a GPU that is not here, by products.
    monkeypatch.setattr(kernels, f"_{kernel.upper()}", products)
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, 2, 16, width, generator=generator).to(dtype) for _ in range(3)]
    output, lse = _cuda_fused(*states, 0.1, causal)
    exact, exact_lse = attention_with_lse(*(one.double() for one in states), scaling=0.1, causal=causal)
    near = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(output.double(), exact, rtol=near, atol=near)
    torch.testing.assert_close(lse.double(), exact_lse, rtol=near, atol=near)
    assert widths == [taken]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels of a GPU need one")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [64, 20])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
# The longer one fills whole blocks of every kernel, and a part of one.
@pytest.mark.parametrize("tokens", [33, 5000])
def test_every_kernel_of_a_gpu_equals_products_in_float64(
    tokens: int, dtype: torch.dtype, tolerance: float, width: int, causal: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    keys = tokens if causal else 70
    query, key, value = (
        torch.randn(1, heads, length, width, generator=generator).to("cuda", dtype)
        for heads, length in ((4, tokens), (2, keys), (2, keys))
    )
    output, lse = attention_with_lse(query, key, value, scaling=0.2, causal=causal)
    # The first tokens and the last: whole score matrices of the longer one would not fit.
    for piece in (slice(0, 33), slice(tokens - 33, tokens)):
        visible = torch.ones(tokens, keys, dtype=torch.bool, device="cuda")
        visible = (visible.tril() if causal else visible)[None, None, piece]
        wide, key64, value64 = (states.double() for states in (query[:, :, piece], key, value))
        exact, exact_lse = masked_attention_with_lse(
            wide,
            key64.repeat_interleave(2, dim=1),
            value64.repeat_interleave(2, dim=1),
            scaling=0.2,
            visible=visible,
        )
        torch.testing.assert_close(output[:, :, piece].double(), exact, rtol=0, atol=tolerance)
        torch.testing.assert_close(lse[:, :, piece].double(), exact_lse, rtol=0, atol=min(tolerance, 5e-3))
