"""One or several fine-tunings in a forward pass: every run has its own projections, all else is the model's and shared.

A row of the batch belongs to one run. Where query, key and value share a parameter, the part that is not trained is
computed for all rows at once. R runs, T tokens, I and O widths of input and output.

A run's gradient of a weight (I, O) is the product of two small factors, the projection's inputs (T, I) and the gradient
of its outputs (T, O). Only these are kept, and the step adds their product to the masters as it is computed: written
out, the gradients of all runs are the most that a step would move through memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_icl.bfloat16_support import multipliable
from lightning_icl.models._adapters import replaced_forwards
from lightning_icl.models.kv import Slice
from lightning_icl.models.projection import weight_of


class OwnProjections:
    """The model's projections, replaced by those of every run.

    Args:
        model: the model.
        parts: what is trained: key and value projections, or query projections.
        masters: of every part (R, *part.shape).
    """

    def __init__(self, model: PreTrainedModel, parts: Sequence[Slice], masters: Sequence[Tensor]) -> None:
        self._tensors = [_used(part, master) for part, master in zip(parts, masters, strict=True)]
        self._projections = _by_module(model, parts)
        self._rest = {module: _rest(module, parts[places["weight"]]) for module, places in self._projections.items()}
        self._parts = parts
        self._passed: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        """By projection its inputs (R, T, I) and outputs (R, T, O) in the last forward pass."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Row r of a batch is computed with the projections of run r until the context ends."""
        # Replaced forwards and not replaced parameters: a module's own forward takes one weight for all rows.
        with replaced_forwards({module: self._forward(module, own) for module, own in self._projections.items()}):
            yield

    def _forward(self, module: nn.Module, places: Mapping[str, int]) -> Callable[[Tensor], Tensor]:
        weight = self._tensors[places["weight"]]
        weight = weight if isinstance(module, Conv1D) else weight.mT
        bias = self._tensors[places["bias"]] if "bias" in places else None
        rest = self._rest[module]

        def forward(states: Tensor) -> Tensor:
            # Gradients are taken of outputs. In the lowest layer nothing else would make autograd follow them.
            own = _batched(states, weight, bias)
            own = own if own.requires_grad else own.requires_grad_()
            self._passed[module] = states.detach(), own
            return own if rest is None else rest(states, own)

        return forward

    def gradients(self, loss: Tensor) -> "list[Gradient | None]":
        """Of every part what `descend` needs; None where the loss does not depend on it."""
        passed, self._passed = self._passed, {}
        outputs = [own for _, own in passed.values()]
        of_outputs = torch.autograd.grad(loss, outputs, allow_unused=True) if outputs else ()
        found: list[Gradient | None] = [None] * len(self._parts)
        for (module, (states, _)), gradient in zip(passed.items(), of_outputs, strict=True):
            for name, place in self._projections[module].items() if gradient is not None else ():
                of_weight = name == "weight"
                found[place] = Gradient(
                    gradient, states if of_weight else None, inputs_first=isinstance(module, Conv1D)
                )
        return found

    def descend(self, place: int, master: Tensor, gradient: "Gradient", learning_rates: Sequence[float]) -> None:
        """A step of every run at its own rate on the masters (R, *part.shape) of a part."""
        rates = torch.tensor(learning_rates, dtype=master.dtype, device=master.device)[:, None, None]
        step = gradient.of_outputs.to(master) * rates
        if gradient.inputs is None:
            master.sub_(step.sum(1))
            return
        inputs = gradient.inputs.to(master)
        factors = (inputs.mT, step) if gradient.inputs_first else (step.mT, inputs)
        master.baddbmm_(*factors, alpha=-1)

    def refresh(self, masters: Sequence[Tensor]) -> None:
        """Take over the masters' values, or another number of runs."""
        for place, (part, master) in enumerate(zip(self._parts, masters, strict=True)):
            # After runs have left, masters are new tensors of fewer rows.
            if not self._tensors[place].is_set_to(master):
                self._tensors[place] = _used(part, master)


class Gradient(NamedTuple):
    """Gradients of a weight or a bias in all runs, in factors."""

    of_outputs: Tensor
    """(R, T, O)."""
    inputs: Tensor | None
    """(R, T, I); None for a bias."""
    inputs_first: bool
    """Whether the weight is stored as (I, O)."""


def _used(part: Slice, master: Tensor) -> Tensor:
    return master.detach().to(part.parameter.dtype)


def _by_module(model: PreTrainedModel, parts: Sequence[Slice]) -> dict[nn.Module, dict[str, int]]:
    """By projection, the places of its parts by what they are called in it."""
    owners = {
        id(parameter): (module, name)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
    }
    places: dict[nn.Module, dict[str, int]] = {}
    for place, part in enumerate(parts):
        module, name = owners[id(part.parameter)]
        places.setdefault(module, {})[name] = place
    return places


def _batched(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(R, T, O) from states (R, T, I), weights (R, I, O) and biases (R, O), each run with its own."""
    # CPUs without bfloat16 instructions multiply in float32 instead.
    wide, wide_weight = multipliable(states, weight)
    out = torch.bmm(wide, wide_weight).to(states.dtype)
    return out if bias is None else out + bias[:, None].to(out.dtype)


def _rest(module: nn.Module, part: Slice) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Puts the outputs that are not trained between those that are; None where all are trained."""
    if not part.place:
        return None
    weight = weight_of(module).detach()
    outputs = torch.arange(len(weight), device=weight.device)
    trained = outputs[part.place[-1]]
    others = outputs[~torch.isin(outputs, trained)]
    # Where each output of the fused projection stands once shared and trained ones are put side by side.
    order = torch.cat([others, trained]).argsort()
    bias = None if getattr(module, "bias", None) is None else module.get_parameter("bias").detach()[others]
    shared = weight[others]
    in_order = torch.equal(order, outputs)

    def join(states: Tensor, own: Tensor) -> Tensor:
        wide, wide_weight = multipliable(states, shared)
        out = linear(wide, wide_weight, None if bias is None else bias.to(wide)).to(own.dtype)
        joined = torch.cat([out, own], dim=-1)
        return joined if in_order else joined.index_select(-1, order)

    return join
