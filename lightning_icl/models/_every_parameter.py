"""A fine-tuning of everything: the model computes with other parameters while it lasts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_icl.models.kv import Slice


class EveryParameter:
    """All of the model's parameters, replaced by those of one run.

    Args:
        model: the model.
        parts: its parameters, each whole.
        masters: of every part (1, *part.shape).
    """

    def __init__(self, model: PreTrainedModel, parts: Sequence[Slice], masters: Sequence[Tensor]) -> None:
        self._model, self._parts = model, parts
        self._tensors = [
            # A master that already has the type of the parameter serves itself, without a copy.
            master.detach()[0].to(part.parameter).requires_grad_()
            for part, master in zip(parts, masters, strict=True)
        ]
        """In the model's type."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The model computes with the run's parameters until the context ends."""
        # By identity: a tied parameter stands in several modules under several names.
        used = {id(part.parameter): tensor for part, tensor in zip(self._parts, self._tensors, strict=True)}
        places = [
            (module._parameters, name, parameter)
            for module in self._model.modules()
            for name, parameter in module._parameters.items()
            if id(parameter) in used
        ]
        # Straight into the dictionary: assignment through the module would demand an `nn.Parameter`.
        try:
            for parameters, name, parameter in places:
                parameters[name] = used[id(parameter)]  # type: ignore[assignment]  # any tensor serves in a forward pass
            yield
        finally:
            for parameters, name, parameter in places:
                parameters[name] = parameter

    @torch.no_grad()
    def refresh(self, masters: Sequence[Tensor]) -> None:
        """Take over the masters' values."""
        for master, tensor in zip(masters, self._tensors, strict=True):
            # Where the master itself is in use, the step has already changed it.
            if not tensor.is_set_to(master[0]):
                tensor.copy_(master[0])

    def gradients(self, loss: Tensor) -> list[Tensor | None]:
        """Of every part what `descend` needs; None where the loss does not depend on it."""
        # `autograd.grad` and not `backward`: accumulating would run hooks that listen for a parameter's gradient.
        return list(torch.autograd.grad(loss, self._tensors, allow_unused=True))

    def descend(self, place: int, master: Tensor, gradient: Tensor, learning_rates: Sequence[float]) -> None:
        """A step on the master (1, *part.shape) of a part."""
        master[0].add_(gradient.to(master), alpha=-learning_rates[0])
