"""Capture: a visit to a model that runs queries after a shared prefix and records what attention does.

While a `Capture` is open, every attention layer of the model is routed to its `attend`, which computes attention with
the shared prefix and records the probe token's scores; forward hooks record the query before rotary embedding and the
attention output. On exit the model is as it was. Layers may stand on different devices. Axes: B batch, H heads, K
key/value heads, T own tokens, P prefix tokens, D head width, L layers.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.attention.branches import branched_ema
from lightning_icl.attention.ladder import SharedTokens
from lightning_icl.attention.prefix import join_attention, own_attention
from lightning_icl.models._fast_paths import fused_blocks, head_in_pieces, shared_embedding, wide_products
from lightning_icl.models._fast_rotary import fast_rotary
from lightning_icl.models._last_block import narrow_last_block
from lightning_icl.models._routing import routed
from lightning_icl.models.architecture import architecture_of, fused_layout, fused_rows, head_counts
from lightning_icl.models.forward_pass import ForwardPass, LayerAttention, at_probe
from lightning_icl.models.momentum.settings import has_momentum, layer_momentum
from lightning_icl.models.onednn import onednn_products
from lightning_icl.models.recording import Prefix, Recording
from lightning_icl.models.replacement import Replacement
from lightning_icl.models.rotary import length_scaling
from lightning_icl.records import QueryBatch


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
            # Layers of a spread model stand on several devices, and an index must be where the tensor is.
            self._query_rows = [rows.to(next(module.parameters()).device) for module in self.attentions]
        self._under_way: ForwardPass | None = None
        self._visit: ExitStack | None = None

    def __enter__(self) -> "Capture":
        self._visit = ExitStack()
        # Entered on a stack of its own: if any step fails, what was entered before is undone.
        with ExitStack() as stack:
            ways = {module: partial(self.attend, layer) for layer, module in enumerate(self.attentions)}
            stack.enter_context(routed(self.model, ways))
            stack.enter_context(fast_rotary(self.attentions[0]))
            stack.enter_context(fused_blocks(self.model))
            stack.enter_context(wide_products(self.model))
            stack.enter_context(head_in_pieces(self.model.get_output_embeddings()))
            stack.enter_context(onednn_products(self.model))
            # Around all products: in some families it is single ones that are narrowed.
            stack.enter_context(narrow_last_block(self.model, lambda: self._under_way))
            stack.enter_context(shared_embedding(self.model.get_input_embeddings(), self._queries))
            for layer, module in enumerate(self.attentions):
                stack.callback(self._hook_query(module, self._query_rows[layer]).remove)
                output = module.get_submodule(self.architecture.output)
                stack.callback(output.register_forward_hook(self._record_output).remove)
            head = self.model.get_output_embeddings()
            stack.callback(head.register_forward_pre_hook(self._keep_predicting).remove)
            # All is in place: the visit now owns what must be undone.
            self._visit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._visit is not None:
            self._visit.close()
            self._visit = None

    @torch.inference_mode()
    def prefix(self, token_ids: Sequence[int], shift: int = 0) -> Prefix | None:
        """Keys and values of a prefix under the weights now in the model; None for no tokens.

        Args:
            token_ids: of the prefix.
            shift: position of its first token.
        """
        if not token_ids:
            return None
        ids = torch.tensor([list(token_ids)]).to(self.model.device)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        recording = Recording(purpose="prefix", device=ids.device)
        # Without the unembedding, whose logits over the whole prompt would be the largest tensor of the run.
        self._run(self.model.base_model, ids, ForwardPass(recording=recording, positions=positions, shift=shift))
        return Prefix(
            length=ids.shape[1],
            keys=tuple(recording.keys),
            values=tuple(recording.values),
            emas=tuple(recording.emas),
        )

    @torch.inference_mode()
    def observe(
        self,
        batch: QueryBatch,
        prefix: Prefix | None,
        offset: int = 0,
        replacement: Replacement | None = None,
        *,
        shift: int = 0,
        watch: Callable[[LayerAttention], None] | None = None,
    ) -> tuple[Tensor, Recording]:
        """Run a batch of queries after a prefix, or `offset` positions further on.

        Args:
            batch: the queries.
            prefix: what they follow.
            offset: how many positions further on than right behind it.
            replacement: what stands in place of attention to the prefix's demonstrations.
            shift: the position of the prefix's first token. Moving all tokens alike changes nothing that a model of
                relative positions computes; it only turns rotary keys and queries into the frame of another input.
            watch: is shown every layer's attention.

        Returns:
            The logits at the batch's scored positions (logit, vocabulary), and what was recorded at the probe tokens.

        Raises:
            ModelError: rotary scaling gives the queries other angles than the prefix.
        """
        length = prefix.length if prefix else 0
        positions = batch.positions + length + offset
        # Rotary scaling by length would give prefix and queries different angles in one input.
        if self._scaling is not None:
            self._scaling.check(length, int(positions.max()) + 1)
        under_way = ForwardPass(
            recording=Recording(purpose="probe", device=batch.token_ids.device),
            positions=positions,
            batch=batch,
            prefix=prefix,
            offset=offset,
            shift=shift,
            replacement=replacement,
            watch=watch,
        )
        # `[0]`: the hook on the unembedding left one row with all scored positions.
        return self._run(self.model, batch.token_ids, under_way).logits[0], under_way.recording

    def train_forward(self, token_ids: Tensor, predicting: Sequence[slice]) -> tuple[Tensor, list[Tensor]]:
        """A differentiable forward pass of whole sequences.

        Args:
            token_ids: (B, T); rows may be padded at their end.
            predicting: of each row the tokens whose logits are wanted.

        Returns:
            Logits (token, vocabulary) of the tokens wanted, row by row, and per layer the query vectors of all tokens
            (B, T, H * D), detached.
        """
        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        numbers = torch.arange(token_ids.numel(), device=token_ids.device).view_as(token_ids)
        under_way = ForwardPass(
            recording=Recording(purpose="training", device=token_ids.device),
            positions=positions,
            predicting=torch.cat([numbers[row, tokens] for row, tokens in enumerate(predicting)]),
        )
        # `[0]`: the hook on the unembedding left one row with all tokens that predict.
        return self._run(self.model, token_ids, under_way).logits[0], under_way.recording.queries

    def _run(self, model: nn.Module, token_ids: Tensor, under_way: ForwardPass) -> Any:
        """Run the model, or its body without the unembedding, filling the recording."""
        self._under_way = under_way
        # Without position ids the positions are the ALiBi bias alone, which `attend` adds.
        positions = {"position_ids": under_way.positions + under_way.shift} if self.architecture.takes_positions else {}
        try:
            # No cache of transformers: the prefix's keys and values are kept here, once for the whole batch.
            return model(input_ids=token_ids, use_cache=False, **positions)
        finally:
            # Even after an error: a later call outside a visit must not write into this recording.
            self._under_way = None

    def _queries(self) -> QueryBatch | None:
        """The batch of queries that is being observed."""
        return None if self._under_way is None else self._under_way.batch

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
        assert self._under_way is not None
        under_way = self._under_way
        prefix, recording, length = under_way.prefix, under_way.recording, under_way.prefix_length
        positions, batch = under_way.on(query.device)
        if torch.is_autocast_enabled(query.device.type):  # fused kernels below autocast's own level want one type
            dtype = torch.get_autocast_dtype(query.device.type)
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if batch is not None and key.shape[1] < query.shape[1]:
            # Laid out once: where heads share keys, own tokens, BOS and recorded scores would each copy them.
            query, key = query.contiguous(), key.contiguous()
        # Contiguous, since every query batch reads them.
        if recording.purpose == "prefix":
            recording.keys.append(key.contiguous())
            recording.values.append(value.contiguous())
        # Where positions lie in this pass; a window at least that long hides nothing.
        span = range(length + under_way.offset, length + under_way.offset + query.shape[2])
        bias = None if position_bias is None else position_bias(span.stop)
        if window is not None and window >= span.stop:
            window = None
        # Own tokens and prefix apart, joined by their log-sum-exp: see `attention.prefix`.
        own, own_lse = own_attention(
            query,
            key,
            value,
            scaling=scaling,
            softcap=softcap,
            visible=under_way.visible(window, query.device),
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
            replacement = under_way.replacement
            # A rung of the ladder takes the place of attention to the demonstrations.
            if replacement is not None and layer in replacement.layers:
                assert batch is not None
                own = replacement.attend(layer, query, own, own_lse, shared, window, batch)
            else:
                own = join_attention(own, own_lse, *shared.attend(query, window, positions, span))
        if batch is not None:
            seen = LayerAttention(
                layer=layer, batch=batch, query=query, key=key, value=value, output=own, scaling=scaling, window=window
            )
            # Autocast would record scores in half precision.
            with torch.autocast(query.device.type, enabled=False):
                under_way.record_scores(seen)
            recording.windows.append(window)
            if under_way.watch is not None:
                under_way.watch(seen)
        # Added after attention, as momentum attention is defined.
        if self._momentum:
            momentum = layer_momentum(self.attentions[layer])
            own = momentum.added(own, self._ema(layer, momentum.eta, momentum.summed(value), under_way))
        return own.transpose(1, 2)

    def _ema(self, layer: int, eta: float | Tensor, value: Tensor, under_way: ForwardPass) -> Tensor:
        """(B, K, T, D) moving average of the values of prefix and own tokens before each own token."""
        batch = under_way.on(value.device)[1]
        ema, last = branched_ema(
            value,
            eta,
            state=under_way.prefix.emas[layer] if under_way.prefix else None,
            branches=batch.branches if batch else None,
        )
        if under_way.recording.purpose == "prefix":
            under_way.recording.emas.append(last)
        return ema

    def _hook_query(self, module: nn.Module, rows: Tensor | None) -> Any:
        """The hook that records query vectors before rotary embedding, after query normalisation.

        Args:
            module: of attention.
            rows: those of the query where one projection makes query, key and value.
        """
        # Families with query norm normalise before rotating, and the definition wants the normalised query.
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
        if self._under_way is None or self._under_way.recording.purpose == "prefix":
            return
        recording, batch = self._under_way.recording, self._under_way.on(states.device)[1]
        if batch is not None:
            # Cut to the probe token before anything is kept, so that memory does not grow with the length of queries.
            states = at_probe(states, batch.probe_index)
        states = states if rows is None else states.index_select(-1, rows)
        recording.queries.append(states.detach().to(recording.device))

    def _record_output(self, _: nn.Module, __: object, output: Tensor) -> None:
        # The module also runs outside a pass, for instance in the user's own code between two steps.
        if self._under_way is None:
            return
        recording, batch = self._under_way.recording, self._under_way.on(output.device)[1]
        if batch is not None:
            # Some families flatten batch and token before the output projection.
            flat = output.reshape(*batch.token_ids.shape, -1)
            recording.outputs.append(at_probe(flat, batch.probe_index).to(recording.device))

    def _keep_predicting(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Give the unembedding only the tokens whose logits are needed."""
        if self._under_way is None:
            return None
        # Logits of all tokens would be (batch, token, vocabulary).
        return (self._under_way.predicting_states(arguments[0]), *arguments[1:])
