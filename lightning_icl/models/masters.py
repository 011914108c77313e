"""Float32 masters of what fine-tuning trains: they take the steps, and the model computes with them while it learns.

The model's own weights are never written, so that nothing can keep it from having them afterwards. R runs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.models.kv import Slice, Trained, slices
from lightning_icl.records import KVOverlay


class Masters:
    """What is trained, in float32 or better whatever the model's type: a rate of 1e-4 vanishes in bfloat16 weights.

    Args:
        model: the model.
        trained: what learns.
    """

    def __init__(self, model: PreTrainedModel, trained: Trained = "kv") -> None:
        self._model = model
        self._slices = slices(model, trained)
        self.parameters = [nn.Parameter(_master(part.read())) for part in self._slices]
        self.steps = 0
        """Steps taken."""
        # Whole parameters in the model's type, of which the masters fill their part; a master itself where it can be.
        self._used = [
            part.whole(master.detach()).requires_grad_()
            for part, master in zip(self._slices, self.parameters, strict=True)
        ]
        self._gradients: list[Tensor] | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The model computes with the masters, in its own type, until the context ends."""
        used = {id(part.parameter): tensor for part, tensor in zip(self._slices, self._used, strict=True)}
        places = [
            (module._parameters, name, parameter)
            for module in self._model.modules()
            for name, parameter in module._parameters.items()
            if id(parameter) in used
        ]
        try:
            for parameters, name, parameter in places:
                parameters[name] = used[id(parameter)]  # type: ignore[assignment]  # any tensor serves in a forward pass
            yield
        finally:
            for parameters, name, parameter in places:
                parameters[name] = parameter

    def backward(self, loss: Tensor) -> None:
        """Keep the gradients of a loss for the next step; no parameter of the model receives any.

        Raises:
            RuntimeError: the loss does not depend on something that is trained.
        """
        gradients = torch.autograd.grad(loss, self._used, allow_unused=True)
        for part, gradient in zip(self._slices, gradients, strict=True):
            if gradient is None:
                raise RuntimeError(f"No gradient has reached {part.name}.")
        self._gradients = list(gradients)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One plain SGD step, by the gradients of the last `backward`.

        Raises:
            RuntimeError: there are none.
        """
        if self._gradients is None:
            raise RuntimeError("There are no gradients to take a step by.")
        gradients, self._gradients = self._gradients, None
        for part, master, used, gradient in zip(self._slices, self.parameters, self._used, gradients, strict=True):
            master.add_(gradient[part.place].to(master), alpha=-learning_rate)
            if not used.is_set_to(master):
                used[part.place] = master.to(used)
        self.steps += 1

    def overlay(self) -> KVOverlay:
        """The masters themselves, which must not be stepped any more."""
        return KVOverlay(
            tensors={part.name: master.detach() for part, master in zip(self._slices, self.parameters, strict=True)}
        )

    def update_norms(self) -> list[float]:
        """Per layer the Frobenius norm of the change of what is trained in it."""
        squares = [0.0] * int(self._model.config.num_hidden_layers)
        for part, master in zip(self._slices, self.parameters, strict=True):
            if part.layer is not None:
                squares[part.layer] += _square(part, master)
        return [square**0.5 for square in squares]


class PlainSGD(torch.optim.Optimizer):
    """Plain SGD on masters. The gradients and the rate are the masters' own: whoever changes the optimizer's, such as
    a schedule or a callback that clips, changes nothing.

    Args:
        masters: take the steps.
        learning_rate: of every step.
    """

    def __init__(self, masters: Masters, learning_rate: float) -> None:
        super().__init__(masters.parameters, {"lr": learning_rate})
        self._masters, self._learning_rate = masters, learning_rate

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, after the closure has computed loss and gradients."""
        loss = None if closure is None else closure()
        self._masters.step(self._learning_rate)
        return loss


def _square(part: Slice, master: Tensor) -> float:
    return float((master.detach() - part.read().to(master)).double().square().sum())


def _master(tensor: Tensor) -> Tensor:
    """A copy in float32 or better."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
