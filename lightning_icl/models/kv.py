"""The parameters that fine-tuning updates: which they are, and overlays on them.

Restricted fine-tuning (Dai et al., section 4.1) updates key and value projections and nothing else. Where query, key
and value share one fused parameter, only its key/value rows take part, and the query rows stay bit-identical. Controls
update the query projections, or everything.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_icl.errors import ModelError
from lightning_icl.models.architecture import architecture_of, fused_layout, fused_rows
from lightning_icl.records import KVOverlay

Trained = Literal["kv", "query", "all"]
"""What fine-tuning updates: key and value projections, query projections, or every parameter."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One parameter that is trained, or the part of it that is."""

    name: str
    """Name of the parameter in the model, with `::kv` or `::query` appended where only some of its rows take part."""
    layer: int | None
    """Number of the block it belongs to; None outside all blocks."""
    parameter: nn.Parameter
    """The model's parameter."""
    place: tuple[slice | Tensor, ...]
    """Where in the parameter the part is, as an index: of all of it, or of the output rows that take part."""

    @property
    def shape(self) -> torch.Size:
        """Shape of the part."""
        return self.parameter.detach()[self.place].shape

    def read(self) -> Tensor:
        """A copy of the part."""
        return self.parameter.detach()[self.place].clone()

    def whole(self, values: Tensor) -> Tensor:
        """The whole parameter with other values in this part, the model left alone; a copy only if need be."""
        values = values.to(self.parameter)
        if values.shape == self.parameter.shape:
            return values
        changed = self.parameter.detach().clone()
        changed[self.place] = values
        return changed


def slices(model: PreTrainedModel, trained: Trained = "kv") -> list[Slice]:
    """What is trained: of projections layer by layer, weights before biases, keys before values."""
    if trained == "all":
        return _all_parameters(model)
    architecture = architecture_of(model.config)
    rows = None
    if fused_layout(model.config) is not None:
        # `fused_rows` gives query rows and key/value rows, in this order.
        rows = fused_rows(model.config)[int(trained == "kv")]
    # A fused parameter has one name for all three, so the first stands for it.
    first = trained == "query" or rows is not None
    projections = architecture.projections[:1] if first else architecture.projections[1:]
    parts = []
    for layer, _ in enumerate(model.get_submodule(architecture.layers).children()):
        for projection in projections:
            path = f"{architecture.layers}.{layer}.{architecture.attention}.{projection}"
            module = model.get_submodule(path)
            for name, parameter in module.named_parameters(recurse=False):
                parts.append(
                    Slice(
                        name=f"{path}.{name}" + ("" if rows is None else f"::{trained}"),
                        layer=layer,
                        parameter=parameter,
                        # Conv1D stores its weight transposed, so its outputs are columns.
                        place=_place(rows, parameter, int(isinstance(module, Conv1D) and name == "weight")),
                    )
                )
    return parts


def _place(rows: list[int] | None, parameter: nn.Parameter, axis: int) -> tuple[slice | Tensor, ...]:
    """The index of some output rows along `axis`, or of everything; rows that follow each other make a view."""
    before = (slice(None),) * axis
    if rows is None:
        return ()
    # A slice is a view: reading and writing it copies nothing.
    if rows == list(range(rows[0], rows[-1] + 1)):
        return (*before, slice(rows[0], rows[-1] + 1))
    return (*before, torch.tensor(rows, device=parameter.device))


def _all_parameters(model: PreTrainedModel) -> list[Slice]:
    """Every parameter whole; tied ones count once."""
    blocks = f"{architecture_of(model.config).layers}."
    return [
        Slice(
            name=name,
            layer=int(name.removeprefix(blocks).split(".")[0]) if name.startswith(blocks) else None,
            parameter=parameter,
            place=(),
        )
        # `named_parameters` yields tied parameters once.
        for name, parameter in model.named_parameters()
    ]


class GradientGate:
    """Lets gradients reach what is trained and nothing else, until it is opened again."""

    def __init__(self, model: PreTrainedModel, trained: Trained = "kv") -> None:
        # Flags as they were, since users may have frozen parts themselves.
        self._flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        for parameter, _ in self._flags:
            parameter.requires_grad_(False)
        for part in slices(model, trained):
            part.parameter.requires_grad_(True)

    def open(self) -> None:
        """Give every parameter its own flag back."""
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)


class LaidOver:
    """An overlay made ready for one model: switching it on and off moves pointers.

    Where query, key and value share a parameter, a whole one is put together. Overlays that are never on together can
    share it and write their part into it when their turn comes.

    Args:
        model: the model.
        overlay: fine-tuned parameters of it.
        scratch: whole parameters by name, to be shared; filled here.

    Raises:
        ModelError: the overlay does not belong to this model.
    """

    def __init__(self, model: PreTrainedModel, overlay: KVOverlay, scratch: dict[str, Tensor] | None = None) -> None:
        parts = _fitting(model, overlay)
        scratch = {} if scratch is None else scratch
        self._parts: list[tuple[Slice, Tensor, Tensor]] = []
        # Overlays may be prepared inside a pass of inference mode, but their tensors must outlive it.
        with torch.inference_mode(False), torch.no_grad():
            for name, part in parts.items():
                values = overlay.tensors[name]
                if values.shape != part.shape:
                    raise ModelError(
                        f"The overlay does not fit this model: {name!r} has shape {tuple(values.shape)}, "
                        f"the model's is {tuple(part.shape)}."
                    )
                # Converted once to the model's type and device, so that switching costs nothing.
                whole = values = values.to(part.parameter)
                # Fused: the query rows must be there too. One whole tensor serves all overlays, as only one of them is
                # on.
                if values.shape != part.parameter.shape:
                    if name not in scratch:
                        scratch[name] = part.whole(values)
                    whole = scratch[name]
                self._parts.append((part, values, whole))

    @contextmanager
    def active(self) -> Iterator[None]:
        """The overlay's weights are the model's until the context ends.

        Raises:
            RuntimeError: another overlay with the same scratch is on.
        """
        originals = [part.parameter.data for part, _, _ in self._parts]
        scratch_in_use = any(
            original.is_set_to(whole)
            for original, (_, values, whole) in zip(originals, self._parts, strict=True)
            if whole is not values
        )
        if scratch_in_use:
            raise RuntimeError("Two overlays that share scratch are on together.")
        try:
            with torch.inference_mode(False), torch.no_grad():
                for part, values, whole in self._parts:
                    if whole is not values:
                        # The scratch holds whatever overlay was on before.
                        whole[part.place] = values
                    # `.data` swaps the storage and keeps the parameter object, so hooks and tied modules follow.
                    part.parameter.data = whole
            yield
        finally:
            for (part, _, _), original in zip(self._parts, originals, strict=True):
                part.parameter.data = original


def overlaid(overlay: LaidOver | None) -> AbstractContextManager[None]:
    """The model with an overlay that was made ready, or with its own weights where there is none."""
    return nullcontext() if overlay is None else overlay.active()


def with_overlay(model: PreTrainedModel, overlay: KVOverlay | None) -> AbstractContextManager[None]:
    """The same for an overlay that is used once.

    Raises:
        ModelError: the overlay does not belong to this model.
    """
    return overlaid(None if overlay is None else LaidOver(model, overlay))


def _fitting(model: PreTrainedModel, overlay: KVOverlay) -> dict[str, Slice]:
    """The parts of the model that an overlay holds, by name.

    Raises:
        ModelError: its names are not those of any kind of fine-tuning of this model.
    """
    # Names differ by kind of fine-tuning (`::kv`, `::query`, or none), so they tell which one made the overlay.
    kinds = [{part.name: part for part in slices(model, trained)} for trained in get_args(Trained)]
    for kind in kinds:
        if kind.keys() == overlay.tensors.keys():
            return kind
    # Names of the first kind: key and value projections are what nearly every overlay holds.
    odd = sorted(kinds[0].keys() ^ overlay.tensors.keys())[0]
    raise ModelError(
        f"The overlay does not fit this model: {odd!r} is in only one of the two. Use the overlay with the model it "
        "was trained on."
    )
