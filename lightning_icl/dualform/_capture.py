"""What the dual form needs of a model: keys, values, the probe token's query and output per head, and the MLP's input.

`DualCapture` opens a `Capture` and keeps these at chosen layers. Axes: B batch, H query heads, K key/value heads, T
own tokens, P prefix tokens, D head width, E model width.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.models.architecture import architecture_of
from lightning_icl.models.capture import Capture
from lightning_icl.models.forward_pass import LayerAttention, at_probe
from lightning_icl.models.projection import weight_of
from lightning_icl.models.recording import Prefix
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


class DualCapture:
    """A visit to a model that keeps what the dual form needs at some layers.

    Args:
        model: a causal language model of a supported architecture.
        layers: numbers of the layers to look at.

    Raises:
        ModelError: the architecture cannot be probed rightly.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[int]) -> None:
        self.layers = tuple(layers)
        self.architecture = architecture_of(model.config)
        self._model, self._capture, self._visit = model, Capture(model), ExitStack()
        self._mlp_inputs: dict[int, Tensor] = {}

    def __enter__(self) -> "DualCapture":
        # On a stack of its own, so that a failing hook leaves none behind.
        with ExitStack() as stack:
            stack.enter_context(self._capture)
            for layer in self.layers:
                # The MLP's own input is that of its first matrix, and has all tokens in the last block too.
                module = self._block(layer).get_submodule(self.architecture.mlp[0])
                stack.callback(module.register_forward_pre_hook(self._keep_mlp_input(layer)).remove)
            self._visit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._visit.close()

    def prefix_at(self, token_ids: Sequence[int], shift: int) -> Prefix | None:
        """Keys and values of a prefix whose first token stands at position `shift`."""
        return self._capture.prefix(token_ids, shift)

    def view(self, batch: QueryBatch, prefix: Prefix | None, shift: int) -> dict[int, LayerView]:
        """Run a batch of queries after a prefix; by layer, what the probe tokens see.

        Args:
            batch: the queries.
            prefix: as `prefix_at` made it.
            shift: the position of the prefix's first token.
        """
        attention: dict[int, LayerAttention] = {}

        def keep(seen: LayerAttention) -> None:
            if seen.layer in self.layers:
                attention[seen.layer] = seen

        try:
            self._capture.observe(batch, prefix, shift=shift, watch=keep)
            # Popped layer by layer: a batch's keys and values of all layers are the largest thing held.
            return {layer: self._layer_view(attention.pop(layer)) for layer in self.layers}
        finally:
            self._mlp_inputs = {}

    def _layer_view(self, seen: LayerAttention) -> LayerView:
        index = seen.batch.probe_index
        # Some families flatten batch and token before the MLP.
        states = self._mlp_inputs.pop(seen.layer).reshape(*seen.batch.token_ids.shape, -1)
        return LayerView(
            query=at_probe(seen.query.transpose(1, 2), index),
            key=seen.key,
            value=seen.value,
            output=at_probe(seen.output.transpose(1, 2), index),
            scaling=seen.scaling,
            window=seen.window,
            mlp_input=at_probe(states, index),
        )

    def _keep_mlp_input(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self._mlp_inputs[layer] = arguments[0]

        return keep

    def first_mlp_matrix(self, layer: int) -> Tensor:
        """(hidden, E): the MLP's first matrix, gate and up projections one on the other."""
        block = self._block(layer)
        return torch.cat([weight_of(block.get_submodule(name)).detach() for name in self.architecture.first_mlp])

    def _block(self, layer: int) -> nn.Module:
        return self._model.get_submodule(f"{self.architecture.layers}.{layer}")
