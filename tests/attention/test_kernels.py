"""Which kernel attends: one that a device has for the type of its numbers."""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_icl.attention._kernels import attention_with_lse


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
