"""Float32 masters of what fine-tuning trains: they take the steps, and the model computes with them while it learns.

The model's own weights are never written, so that nothing can keep it from having them afterwards. R runs, each with
masters of its own.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.models._every_parameter import EveryParameter
from lightning_icl.models._own_projections import OwnProjections
from lightning_icl.models.kv import Slice, Trained, slices
from lightning_icl.records import KVOverlay


class Masters:
    """What is trained, in float32 or better whatever the model's type: a rate of 1e-4 vanishes in bfloat16 weights.

    Args:
        model: the model.
        trained: what learns.
        runs: how many learn side by side: one if it trains everything, else any number.
    """

    def __init__(self, model: PreTrainedModel, trained: Trained = "kv", runs: int = 1) -> None:
        self._model = model
        self._slices = slices(model, trained)
        # Parameters, so that an optimizer and Lightning accept them; no gradient is ever stored in them.
        self.parameters = [nn.Parameter(_master(part.read(), runs)) for part in self._slices]
        """Of every part the masters of all runs (R, *part.shape)."""
        self.steps = 0
        """Steps taken."""
        # One arithmetic for a run alone and in a group, so that it comes out the same; only projections can be grouped.
        in_model = EveryParameter if trained == "all" else OwnProjections
        self._in_model: EveryParameter | OwnProjections = in_model(model, self._slices, self.parameters)
        self._gradients: list[Any] | None = None

    def in_use(self) -> AbstractContextManager[None]:
        """Row r of a batch is computed with the masters of run r, in the model's type, until the context ends."""
        return self._in_model.in_use()

    def backward(self, loss: Tensor) -> None:
        """Keep the gradients of a loss for the next step; they never reach the model's own parameters.

        Args:
            loss: the sum of the runs' own.

        Raises:
            RuntimeError: the loss does not depend on something that is trained.
        """
        # Steps go on where no run is left, with nothing in them.
        if not len(self.parameters[0]):
            self._gradients = []
            return
        gradients = self._in_model.gradients(loss)
        for part, gradient in zip(self._slices, gradients, strict=True):
            if gradient is None:
                raise RuntimeError(f"No gradient has reached {part.name}.")
        self._gradients = gradients

    @torch.no_grad()
    def step(self, learning_rates: Sequence[float]) -> None:
        """One plain SGD step of every run at its own rate, by the gradients of the last `backward`.

        Raises:
            RuntimeError: there are none.
        """
        if self._gradients is None:
            raise RuntimeError("There are no gradients to take a step by.")
        # Used once: a second step without a new backward would repeat the old one.
        gradients, self._gradients = self._gradients, None
        for place, gradient in enumerate(gradients):
            self._in_model.descend(place, self.parameters[place], gradient, learning_rates)
        self._in_model.refresh(self.parameters)
        self.steps += 1

    def keep(self, runs: Sequence[int]) -> None:
        """Go on with some of the runs, or with none; the others' masters are let go."""
        for master in self.parameters:
            # Indexing copies, so the memory of runs that left is freed.
            master.data = master.data[list(runs)]
        self._in_model.refresh(self.parameters)

    def overlay(self, run: int = 0) -> KVOverlay:
        """The masters of a run themselves, which must not be stepped any more."""
        masters = (master.detach()[run] for master in self.parameters)
        return KVOverlay(tensors={part.name: master for part, master in zip(self._slices, masters, strict=True)})

    def update_norms(self, run: int = 0) -> list[float]:
        """Per layer the Frobenius norm of the change of what is trained in it."""
        squares = [0.0] * int(self._model.config.num_hidden_layers)
        for part, master in zip(self._slices, self.parameters, strict=True):
            if part.layer is not None:
                squares[part.layer] += _square(part, master[run])
        return [square**0.5 for square in squares]


class PlainSGD(torch.optim.Optimizer):
    """Plain SGD on masters. Gradients and rates are the masters' own: changing those of the optimizer, as a schedule
    or a callback that clips would, has no effect.

    Args:
        masters: take the steps.
        learning_rates: of the runs; the list may become shorter on the way, as the runs do.
    """

    def __init__(self, masters: Masters, learning_rates: Sequence[float]) -> None:
        super().__init__(masters.parameters, {"lr": learning_rates[0] if learning_rates else 0.0})
        self._masters, self._learning_rates = masters, learning_rates

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, after the closure has computed loss and gradients."""
        loss = None if closure is None else closure()
        self._masters.step(self._learning_rates)
        return loss


def _square(part: Slice, master: Tensor) -> float:
    # In float64: the change is small beside the weights it is the difference of.
    return float((master.detach() - part.read().to(master)).double().square().sum())


def _master(tensor: Tensor, runs: int) -> Tensor:
    """(R, ...): a copy for each run, in float32 or better."""
    wide = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
    return wide.expand(runs, *wide.shape).clone()
