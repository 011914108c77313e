"""The key and value projections of a model: which parameters they are, their float32 masters, and overlays on them.

Restricted fine-tuning (Dai et al., section 4.1) updates these and nothing else. Where query, key and value share one
fused parameter, only its key/value rows take part, and the query rows stay bit-identical.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_icl.errors import ModelError
from lightning_icl.models.architecture import architecture_of, fused_layout, fused_rows
from lightning_icl.records import KVOverlay


@dataclass(frozen=True, kw_only=True)
class KVSlice:
    """One parameter that belongs to keys and values, or the part of it that does."""

    name: str
    """Name of the parameter in the model, with `::kv` appended where only some of its rows take part."""
    layer: int
    """Number of the attention layer."""
    parameter: nn.Parameter
    """The model's parameter."""
    rows: Tensor | None
    """Output rows that make key and value; None where all do."""
    axis: int
    """Axis of the output rows: 0, or 1 for the transposed weights of GPT-2."""

    def read(self) -> Tensor:
        """A copy of the key/value part."""
        data = self.parameter.detach()
        return data.clone() if self.rows is None else data.index_select(self.axis, self.rows)

    def gradient(self) -> Tensor:
        """The key/value part of the gradient.

        Raises:
            RuntimeError: no gradient has reached the parameter.
        """
        if self.parameter.grad is None:
            raise RuntimeError(f"No gradient has reached {self.name}.")
        return self.parameter.grad if self.rows is None else self.parameter.grad.index_select(self.axis, self.rows)

    @torch.no_grad()
    def write(self, values: Tensor) -> None:
        """Set the key/value part, rounding to the parameter's type."""
        values = values.to(self.parameter)
        if self.rows is None:
            self.parameter.copy_(values)
        else:
            self.parameter.index_copy_(self.axis, self.rows, values)

    def whole(self, values: Tensor) -> Tensor:
        """The whole parameter as it would be after `write(values)`, the model left alone."""
        values = values.to(self.parameter)
        if self.rows is None:
            return values.clone()
        return self.parameter.detach().index_copy(self.axis, self.rows, values)


def kv_slices(model: PreTrainedModel) -> list[KVSlice]:
    """Every key/value parameter of the model, layer by layer: weights before biases, keys before values."""
    architecture = architecture_of(model.config)
    rows = None
    if fused_layout(model.config) is not None:
        rows = torch.tensor(fused_rows(model.config)[1], device=model.device)
    projections = architecture.projections[1:] if rows is None else architecture.projections[1:2]
    slices = []
    for layer, _ in enumerate(model.get_submodule(architecture.layers).children()):
        for projection in projections:
            path = f"{architecture.layers}.{layer}.{architecture.attention}.{projection}"
            module = model.get_submodule(path)
            for name, parameter in module.named_parameters(recurse=False):
                slices.append(
                    KVSlice(
                        name=f"{path}.{name}" + ("" if rows is None else "::kv"),
                        layer=layer,
                        parameter=parameter,
                        rows=rows,
                        axis=int(isinstance(module, Conv1D) and name == "weight"),
                    )
                )
    return slices


class GradientGate:
    """Lets gradients reach the key/value parameters and no other, until it is opened again."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        for parameter, _ in self._flags:
            parameter.requires_grad_(False)
        for part in kv_slices(model):
            part.parameter.requires_grad_(True)

    def open(self) -> None:
        """Give every parameter its own flag back."""
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)


class KVMasters:
    """Float32 masters of the key/value parameters: optimised in place of the model's own, then written into it.

    A learning rate of 1e-4 vanishes in bfloat16 weights, so the steps are taken on these whatever the model's type.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._slices = kv_slices(model)
        self._before = [part.read() for part in self._slices]
        self.parameters = [nn.Parameter(_master(before)) for before in self._before]

    def collect_gradients(self) -> None:
        """Move the model's gradients onto the masters."""
        for part, master in zip(self._slices, self.parameters, strict=True):
            master.grad = part.gradient().to(master.dtype)
            part.parameter.grad = None

    def write(self) -> None:
        """Write the masters into the model."""
        for part, master in zip(self._slices, self.parameters, strict=True):
            part.write(master.detach())

    def restore(self) -> None:
        """Give the model its own weights back, to the bit."""
        for part, before in zip(self._slices, self._before, strict=True):
            part.write(before)
            part.parameter.grad = None

    def overlay(self) -> KVOverlay:
        """The masters as they are now."""
        return KVOverlay(
            tensors={
                part.name: master.detach().clone() for part, master in zip(self._slices, self.parameters, strict=True)
            }
        )

    def update_norms(self) -> list[float]:
        """Per layer the Frobenius norm of the change of its key/value parameters."""
        squares = [0.0] * (self._slices[-1].layer + 1)
        for part, master, before in zip(self._slices, self.parameters, self._before, strict=True):
            squares[part.layer] += float((master.detach() - before.float()).double().square().sum())
        return [square**0.5 for square in squares]


def _master(tensor: Tensor) -> Tensor:
    """A copy in float32 or better."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=True)


class LaidOver:
    """An overlay made ready for one model, so that switching it on and off moves pointers and copies nothing.

    Raises:
        ModelError: the overlay does not belong to this model.
    """

    def __init__(self, model: PreTrainedModel, overlay: KVOverlay) -> None:
        slices = {part.name: part for part in kv_slices(model)}
        if slices.keys() != overlay.tensors.keys():
            odd = sorted(slices.keys() ^ overlay.tensors.keys())[0]
            raise ModelError(
                f"The overlay does not fit this model: {odd!r} is in only one of the two. Use the overlay with the "
                "model it was trained on."
            )
        with torch.inference_mode(False), torch.no_grad():
            self._pairs = []
            for name, part in slices.items():
                values = overlay.tensors[name]
                expected = part.read().shape
                if values.shape != expected:
                    raise ModelError(
                        f"The overlay does not fit this model: {name!r} has shape {tuple(values.shape)}, "
                        f"the model's is {tuple(expected)}."
                    )
                self._pairs.append((part.parameter, part.whole(values)))

    @contextmanager
    def active(self) -> Iterator[None]:
        """The overlay's weights are the model's until the context ends."""
        own = [parameter.data for parameter, _ in self._pairs]
        try:
            for parameter, values in self._pairs:
                parameter.data = values
            yield
        finally:
            for (parameter, _), data in zip(self._pairs, own, strict=True):
                parameter.data = data
