"""The most bytes of tensors alive at once while something runs, a model's own left out."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts storages from the operation that makes them until they are freed.

    Args:
        model: its parameters' storages are not counted.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._alive and storage.data_ptr() not in self._own:
                    self._alive[key] = storage.nbytes()
                    weakref.finalize(storage, self._alive.pop, key, None)
        self.peak = max(self.peak, sum(self._alive.values()))
        return out
