"""What the dual form needs of a model: keys, values, the probe token's query and output per head, and the MLP's input.

`DualCapture` is a `Capture` that also keeps these at chosen layers. Axes: B batch, H query heads, K key/value heads, T
own tokens, P prefix tokens, D head width, E model width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_icl.models.capture import Capture
from lightning_icl.models.recording import Prefix, Recording
from lightning_icl.records import QueryBatch


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """One layer's attention and MLP at the probe tokens of a batch, under one condition."""

    query: Tensor
    """(B, H, D), after rotary embedding."""
    key: Tensor
    """(B, K, T, D) of the own tokens, after rotary embedding."""
    value: Tensor
    """(B, K, T, D)."""
    output: Tensor
    """(B, H, D): softmax attention as the model computes it, before the output projection, and before momentum
    attention adds its moving average, which no query has a part in."""
    scaling: float
    """Factor on the scores."""
    window: int | None
    """How far a token sees, where that cuts the input."""
    mlp_input: Tensor
    """(B, E): what the MLP's first matrix is given."""


class DualCapture(Capture):
    """A capture that keeps what the dual form needs at some layers.

    Args:
        model: a causal language model of a supported architecture.
        layers: numbers of the layers to look at.

    Raises:
        ModelError: the architecture cannot be probed rightly.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[int]) -> None:
        super().__init__(model)
        self.layers = tuple(layers)
        self._shift = 0
        self._seen: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> "DualCapture":
        super().__enter__()
        assert self._visit is not None
        for layer in self.layers:
            module = self._mlp_modules(layer)[0]
            self._visit.callback(module.register_forward_pre_hook(self._record_mlp_input(layer)).remove)
        return self

    def prefix_at(self, token_ids: Sequence[int], shift: int) -> Prefix | None:
        """Keys and values of a prefix whose first token stands at position `shift`."""
        self._shift = shift
        try:
            return self.prefix(token_ids)
        finally:
            self._shift = 0

    def view(self, batch: QueryBatch, prefix: Prefix | None, shift: int) -> dict[int, LayerView]:
        """Run a batch of queries after a prefix; by layer, what the probe tokens see.

        Args:
            batch: the queries.
            prefix: as `prefix_at` made it.
            shift: the position of the prefix's first token. Moving all tokens alike changes nothing that a model of
                relative positions computes; it only turns rotary keys and queries into the frame of another input.
        """
        self._shift, self._seen = shift, {layer: {} for layer in self.layers}
        try:
            self.observe(batch, prefix)
            return {layer: LayerView(**seen) for layer, seen in self._seen.items()}
        finally:
            self._shift, self._seen = 0, {}

    def first_mlp_matrix(self, layer: int) -> Tensor:
        """(hidden, E): the MLP's first matrix, gate and up projections one on the other."""
        weights = []
        for module in self._mlp_modules(layer):
            weight = module.get_parameter("weight").detach()
            weights.append(weight.mT if isinstance(module, Conv1D) else weight)
        return torch.cat(weights)

    def _mlp_modules(self, layer: int) -> list[nn.Module]:
        block = self.model.get_submodule(f"{self.architecture.layers}.{layer}")
        return [block.get_submodule(path) for path in self.architecture.first_mlp]

    def _forward(self, run: Any, token_ids: Tensor, positions: Tensor, recording: Recording) -> Any:
        def run_shifted(**arguments: Any) -> Any:
            if "position_ids" in arguments:
                arguments["position_ids"] = arguments["position_ids"] + self._shift
            return run(**arguments)

        return super()._forward(run_shifted, token_ids, positions, recording)  # type: ignore[arg-type]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        """Attention of one layer, (B, T, H, D), keeping heads where they are asked for."""
        output = super().attend(layer, query, key, value, **settings)
        if self._batch is not None and layer in self._seen:
            rows, probe = torch.arange(len(output), device=output.device), self._batch.probe_index
            window, tokens = settings["window"], key.shape[2] + (self._prefix.length if self._prefix else 0)
            self._seen[layer] |= {
                "query": query[rows, :, probe],
                "key": key,
                "value": value,
                "scaling": settings["scaling"],
                "window": None if window is None or window >= tokens else window,
            }
        return output

    def _with_momentum(self, layer: int, attention: Tensor, value: Tensor, recording: Recording) -> Tensor:
        if self._batch is not None and layer in self._seen:
            rows = torch.arange(len(attention), device=attention.device)
            self._seen[layer]["output"] = attention[rows, :, self._batch.probe_index]
        return super()._with_momentum(layer, attention, value, recording)

    def _record_mlp_input(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if self._batch is not None and layer in self._seen:
                states = arguments[0].reshape(*self._batch.token_ids.shape, -1)
                rows = torch.arange(len(states), device=states.device)
                self._seen[layer]["mlp_input"] = states[rows, self._batch.probe_index]

        return record


def frame_shift(capture: Capture, prefix_length: int, bos_length: int) -> int:
    """Where BOS must stand for a zero-shot query's tokens to have the positions they have after the demonstrations.

    Rotary keys of two inputs can be compared only where the same token is turned by the same angle. Learned positions
    are part of what a token is, not of the frame: there nothing is moved.
    """
    return 0 if capture.architecture.absolute_positions else prefix_length - bos_length
