"""Capture: a visit to a model that runs queries after a shared prefix and records what attention does.

`attend` is the one attention function that every architecture is routed through while a `Capture` is open. It computes
attention with the shared prefix and records the probe token's scores; forward hooks record the query before rotary
embedding and the attention output. On exit the model is as it was. Layers may stand on different devices. Axes: B
batch, H heads, K key/value heads, T own tokens, P prefix tokens, D head width, L layers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from lightning_icl.attention.branches import branched_ema
from lightning_icl.attention.ladder import SharedTokens
from lightning_icl.attention.precision import at_least_float32
from lightning_icl.attention.prefix import join_attention, own_attention, repeat_heads
from lightning_icl.errors import ModelError
from lightning_icl.models.adapters import adapted
from lightning_icl.models.architecture import architecture_of, fused_layout, fused_rows, head_counts
from lightning_icl.models.fast_paths import fused_activations, shared_embedding, wide_products
from lightning_icl.models.momentum.settings import has_momentum, layer_eta
from lightning_icl.models.recording import Prefix, Recording
from lightning_icl.models.replacement import Replacement
from lightning_icl.models.rotary import length_scaling
from lightning_icl.records import QueryBatch

_NAME = "lightning_icl"
_OPEN: "WeakKeyDictionary[nn.Module, tuple[Capture, int]]" = WeakKeyDictionary()


class Capture:
    """A visit to a model: open it with `with Capture(model) as capture`, then run prefixes and queries.

    Args:
        model: a causal language model of a supported architecture.

    Raises:
        ModelError: the architecture cannot be probed rightly.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.architecture = architecture_of(model.config)
        blocks = model.get_submodule(self.architecture.layers)
        self.attentions = [block.get_submodule(self.architecture.attention) for block in blocks.children()]
        self._momentum = has_momentum(model)
        self._scaling = length_scaling(model.config)
        self._query_rows: list[Tensor | None] = [None] * len(self.attentions)
        if fused_layout(model.config) is not None:
            rows = torch.tensor(fused_rows(model.config)[0])
            self._query_rows = [rows.to(next(module.parameters()).device) for module in self.attentions]
        self._prefix: Prefix | None = None
        self._offset = 0
        self._replacement: Replacement | None = None
        self._batch: QueryBatch | None = None
        self._positions: Tensor | None = None
        self._recording: Recording | None = None
        self._local: dict[torch.device, tuple[Tensor, QueryBatch | None]] = {}
        self._visit: ExitStack | None = None

    def __enter__(self) -> "Capture":
        self._visit = ExitStack()
        with ExitStack() as stack:
            stack.enter_context(_routed(self.model))
            stack.enter_context(adapted(self.model, attend))
            stack.enter_context(fused_activations(self.model))
            stack.enter_context(wide_products(self.model))
            stack.enter_context(shared_embedding(self.model.get_input_embeddings(), lambda: self._batch))
            for layer, module in enumerate(self.attentions):
                _OPEN[module] = (self, layer)
                stack.callback(_OPEN.pop, module, None)
                stack.callback(self._hook_query(module, self._query_rows[layer]).remove)
                output = module.get_submodule(self.architecture.output)
                stack.callback(output.register_forward_hook(self._record_output).remove)
            head = self.model.get_output_embeddings()
            stack.callback(head.register_forward_pre_hook(self._keep_scored_positions).remove)
            self._visit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._visit is not None:
            self._visit.close()
            self._visit = None

    @torch.inference_mode()
    def prefix(self, token_ids: Sequence[int]) -> Prefix | None:
        """Keys and values of a prefix under the weights now in the model; None for no tokens."""
        if not token_ids:
            return None
        ids = torch.tensor([list(token_ids)]).to(self.model.device)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        recording = Recording(purpose="prefix", device=ids.device)
        self._forward(self.model.base_model, ids, positions, recording)
        return Prefix(
            length=ids.shape[1],
            keys=tuple(recording.keys),
            values=tuple(recording.values),
            emas=tuple(recording.emas),
        )

    @torch.inference_mode()
    def observe(
        self, batch: QueryBatch, prefix: Prefix | None, offset: int = 0, replacement: Replacement | None = None
    ) -> tuple[Tensor, Recording]:
        """Run a batch of queries after a prefix, or `offset` positions further on.

        Args:
            batch: the queries.
            prefix: what they follow.
            offset: how many positions further on than right behind it.
            replacement: what stands in place of attention to the prefix's demonstrations.

        Returns:
            The logits at the batch's scored positions (logit, vocabulary), and what was recorded at the probe tokens.

        Raises:
            ModelError: rotary scaling gives the queries other angles than the prefix.
        """
        self._batch, self._prefix, self._offset, self._replacement = batch, prefix, offset, replacement
        try:
            length = prefix.length if prefix else 0
            positions = batch.positions + length + offset
            if self._scaling is not None:
                self._scaling.check(length, int(positions.max()) + 1)
            recording = Recording(purpose="probe", device=batch.token_ids.device)
            return self._forward(self.model, batch.token_ids, positions, recording).logits[0], recording
        finally:
            self._batch = self._prefix = self._replacement = None
            self._offset = 0

    def train_forward(self, token_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """A differentiable forward pass of whole sequences.

        Args:
            token_ids: (B, T), no padding.

        Returns:
            Logits (B, T, vocabulary), and per layer the query vectors of all tokens (B, T, H * D), detached.
        """
        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        recording = Recording(purpose="training", device=token_ids.device)
        return self._forward(self.model, token_ids, positions, recording).logits, recording.queries

    def _forward(self, run: nn.Module, token_ids: Tensor, positions: Tensor, recording: Recording) -> Any:
        """Run the model, or its body without the unembedding, filling `recording`."""
        self._positions, self._recording = positions, recording
        # Without position ids the positions are the ALiBi bias alone, which `attend` adds.
        arguments = {"position_ids": positions} if self.architecture.takes_positions else {}
        try:
            return run(input_ids=token_ids, use_cache=False, **arguments)
        finally:
            self._positions = self._recording = None
            self._local = {}

    def _on(self, device: torch.device) -> tuple[Tensor, QueryBatch | None]:
        """Positions and batch of the pass under way, on a layer's device."""
        if device not in self._local:
            assert self._positions is not None
            batch = self._batch.to(device) if self._batch is not None else None
            self._local[device] = self._positions.to(device), batch
        return self._local[device]

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scaling: float,
        softcap: float | None,
        window: int | None,
        position_bias: Callable[[int], Tensor] | None,
    ) -> Tensor:
        """Attention of one layer, (B, T, H, D), recording what the visit is for."""
        prefix, recording = self._prefix, self._recording
        positions, batch = self._on(query.device)
        assert recording is not None
        if torch.is_autocast_enabled(query.device.type):  # fused kernels below autocast's own level want one type
            dtype = torch.get_autocast_dtype(query.device.type)
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if recording.purpose == "prefix":
            recording.keys.append(key.contiguous())
            recording.values.append(value.contiguous())
        length = prefix.length if prefix else 0
        reach = length + self._offset + query.shape[2]
        bias = None if position_bias is None else position_bias(reach)
        if window is not None and window >= reach:
            window = None
        own, own_lse = own_attention(
            query,
            key,
            value,
            scaling=scaling,
            softcap=softcap,
            visible=_visible(window, positions, batch),
            bias=None if bias is None else bias[:, positions].transpose(0, 1).unsqueeze(2),
        )
        if prefix is not None:
            shared = SharedTokens(
                key=prefix.keys[layer],
                value=prefix.values[layer],
                scaling=scaling,
                softcap=softcap,
                bias=None if bias is None else bias[:, :length],
            )
            if self._replacement is not None and layer in self._replacement.layers:
                assert batch is not None
                own = self._replacement.attend(layer, query, own, own_lse, shared, window, batch)
            else:
                own = join_attention(own, own_lse, *shared.attend(query, window, positions))
        own = self._with_momentum(layer, own, value, recording)
        if batch is not None:
            with torch.autocast(query.device.type, enabled=False):
                self._record_scores(recording, batch, layer, query, key, scaling)
            recording.windows.append(window)
        return own.transpose(1, 2)

    def _with_momentum(self, layer: int, attention: Tensor, value: Tensor, recording: Recording) -> Tensor:
        """(B, H, T, D) attention as it is, or plus the moving average of values where the model has momentum."""
        if not self._momentum:
            return attention
        return attention + repeat_heads(self._ema(layer, value, recording), attention.shape[1])

    def _ema(self, layer: int, value: Tensor, recording: Recording) -> Tensor:
        """(B, K, T, D) moving average of the values of prefix and own tokens before each own token."""
        batch = self._on(value.device)[1]
        ema, last = branched_ema(
            value,
            layer_eta(self.attentions[layer]),
            state=self._prefix.emas[layer] if self._prefix else None,
            branches=batch.branches if batch else None,
        )
        if recording.purpose == "prefix":
            recording.emas.append(last)
        return ema

    def _record_scores(
        self, recording: Recording, batch: QueryBatch, layer: int, query: Tensor, key: Tensor, scaling: float
    ) -> None:
        """Scores of the probe token before mask, cap and softmax, in float32 or better (definitions, section 3)."""
        rows = torch.arange(len(batch.probe_index), device=query.device)
        probe = at_least_float32(query[rows, :, batch.probe_index])
        own = torch.einsum("bhd,bhtd->bht", probe, at_least_float32(repeat_heads(key, query.shape[1]))) * scaling
        beyond = torch.arange(key.shape[2], device=key.device) > batch.probe_index[:, None]
        recording.own_scores.append(own.masked_fill(beyond[:, None], 0.0).to(recording.device))
        if self._prefix is not None:
            keys = at_least_float32(self._prefix.keys[layer][0])
            grouped = probe.unflatten(1, (keys.shape[0], -1)).sum(2)
            # One product a key head: a single one over all of them would copy the prefix's keys for each batch.
            scores = (grouped.transpose(0, 1) @ keys.mT).sum(0) * scaling
            recording.prefix_scores.append(scores.to(recording.device))

    def _hook_query(self, module: nn.Module, rows: Tensor | None) -> Any:
        """The hook that records query vectors before rotary embedding, after query normalisation.

        Args:
            module: of attention.
            rows: those of the query where one projection makes query, key and value.
        """
        norm = self.architecture.query_norm
        if norm is None:

            def record(_: nn.Module, __: object, output: Tensor) -> None:
                self._keep_query(output, rows)

            return module.get_submodule(self.architecture.projections[0]).register_forward_hook(record)
        name, layout = norm
        heads, _, width = head_counts(self.model.config)

        def record_normalised(_: nn.Module, __: object, output: Tensor) -> None:
            if layout == "heads_first":
                output = output.transpose(1, 2)
            self._keep_query(output.reshape(*output.shape[:2], heads * width))

        return module.get_submodule(name).register_forward_hook(record_normalised)

    def _keep_query(self, states: Tensor, rows: Tensor | None = None) -> None:
        """Keep the probe token's query in a batch of queries, every token's in training, none for a prefix."""
        if self._recording is None or self._recording.purpose == "prefix":
            return
        batch = self._on(states.device)[1]
        if batch is not None:
            states = _at(states, batch.probe_index)
        states = states if rows is None else states.index_select(-1, rows)
        self._recording.queries.append(states.detach().to(self._recording.device))

    def _record_output(self, _: nn.Module, __: object, output: Tensor) -> None:
        if self._recording is None:
            return
        batch = self._on(output.device)[1]
        if batch is not None:
            flat = output.reshape(*batch.token_ids.shape, -1)
            self._recording.outputs.append(_at(flat, batch.probe_index).to(self._recording.device))

    def _keep_scored_positions(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Give the unembedding only the positions whose logits are needed."""
        if self._batch is None:
            return None
        batch = self._on(arguments[0].device)[1]
        assert batch is not None
        return (arguments[0][batch.logit_rows, batch.logit_tokens][None], *arguments[1:])


def _visible(window: int | None, positions: Tensor, batch: QueryBatch | None) -> Tensor | None:
    """(B, T, T) mask of own tokens where plain causality is not enough, else None."""
    branches = batch.branches if batch is not None else None
    if window is None and branches is None:
        return None
    tokens = positions.shape[1]
    visible = torch.ones(1, tokens, tokens, dtype=torch.bool, device=positions.device).tril()
    if branches is not None:
        visible = visible & ((branches[:, None] == 0) | (branches[:, None] == branches[..., None]))
    if window is not None:
        visible = visible & (positions[..., None] - positions[:, None] < window)
    return visible


def _at(states: Tensor, index: Tensor) -> Tensor:
    """(B, E) from (B, T, E) at one token a row."""
    return states[torch.arange(len(index), device=states.device), index]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    position_bias: Callable[[int], Tensor] | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """The attention function registered with transformers; `(B, T, H, D)` from `(B, H, T, D)` states.

    `position_bias(n)` gives what is added to scaled scores at key positions 0..n-1 of each head (ALiBi), (H, n).

    Raises:
        ModelError: the layer asks for something that would make the result silently wrong.
    """
    if module not in _OPEN:
        raise ModelError(f"The attention implementation {_NAME!r} works only while a Capture of the model is open.")
    if kwargs.get("s_aux") is not None:
        raise ModelError("This model's attention has sinks, which take part of the softmax: it cannot be probed.")
    if dropout:
        raise ModelError("Attention dropout is on; the probe and the fine-tuning need the model in eval mode.")
    capture, layer = _OPEN[module]
    output = capture.attend(
        layer,
        query,
        key,
        value,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        window=sliding_window,
        position_bias=position_bias,
    )
    return output, None


@contextmanager
def _routed(model: PreTrainedModel) -> Iterator[None]:
    """Every attention layer of the model calls `attend`, and no mask is built, until the context ends."""
    AttentionInterface.register(_NAME, attend)  # here and not on import, which is to leave transformers as it is
    configs = {id(module.config): module.config for module in model.modules() if isinstance(module, PreTrainedModel)}
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        for config, _ in before:
            config._attn_implementation = _NAME
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation
