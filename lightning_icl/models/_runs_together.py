"""Several fine-tunings in one forward pass: every run has its own projections, all else is the model's and shared.

A row of the batch belongs to one run. Where query, key and value share a parameter, the part that is not trained is
computed for all rows at once. R runs, T tokens, I and O widths of input and output.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_icl.bfloat16_support import multipliable
from lightning_icl.models._adapters import replaced_forwards
from lightning_icl.models.kv import Slice
from lightning_icl.models.projection import weight_of


class RunsTogether:
    """The model's projections, replaced by those of every run.

    Args:
        model: the model.
        parts: what is trained: key and value projections, or query projections.
        masters: of every part (R, *part.shape).
    """

    def __init__(self, model: PreTrainedModel, parts: Sequence[Slice], masters: Sequence[Tensor]) -> None:
        self.tensors = [_used(part, master) for part, master in zip(parts, masters, strict=True)]
        """What gradients are taken of: each part in the model's type (R, *part.shape)."""
        self._projections = _by_module(model, parts)
        self._rest = {module: _rest(module, parts[places["weight"]]) for module, places in self._projections.items()}
        self._parts = parts

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Row r of a batch is computed with the projections of run r until the context ends."""
        # Replaced forwards and not replaced parameters: a module's own forward takes one weight for all rows.
        with replaced_forwards({module: self._forward(module, own) for module, own in self._projections.items()}):
            yield

    def _forward(self, module: nn.Module, places: Mapping[str, int]) -> Callable[[Tensor], Tensor]:
        weight = self.tensors[places["weight"]]
        weight = weight if isinstance(module, Conv1D) else weight.mT
        bias = self.tensors[places["bias"]] if "bias" in places else None
        rest = self._rest[module]

        def forward(states: Tensor) -> Tensor:
            own = _batched(states, weight, bias)
            return own if rest is None else rest(states, own)

        return forward

    def refresh(self, masters: Sequence[Tensor]) -> None:
        """Take over the masters' values, or another number of runs."""
        for place, (part, master) in enumerate(zip(self._parts, masters, strict=True)):
            # After runs have left, masters are new tensors of fewer rows.
            if not self.tensors[place].is_set_to(master):
                self.tensors[place] = _used(part, master)

    def gradient(self, place: int, gradient: Tensor) -> Tensor:
        """The gradient of a part (R, *part.shape), from that of its tensor."""
        return gradient


def _used(part: Slice, master: Tensor) -> Tensor:
    # Detached, so that gradients are taken of the tensor in use and copied to the master by hand.
    return master.detach().to(part.parameter.dtype).requires_grad_()


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
