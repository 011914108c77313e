"""The forward pass under way in a visit to a model: what runs, behind what, and what is recorded of it.

Axes: B batch, H heads, K key/value heads, T own tokens, D head width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_icl.attention.precision import at_least_float32
from lightning_icl.models.recording import Prefix, Recording
from lightning_icl.models.replacement import Replacement
from lightning_icl.records import QueryBatch


@dataclass(frozen=True, kw_only=True)
class LayerAttention:
    """One layer's attention over a batch of queries, on the layer's device."""

    layer: int
    """Number of the layer."""
    batch: QueryBatch
    """The queries."""
    query: Tensor
    """(B, H, T, D), after rotary embedding."""
    key: Tensor
    """(B, K, T, D) of the own tokens, after rotary embedding."""
    value: Tensor
    """(B, K, T, D)."""
    output: Tensor
    """(B, H, T, D): softmax attention, before momentum attention adds its moving average."""
    scaling: float
    """Factor on the scores."""
    window: int | None
    """How far a token sees, where that cuts the input."""


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """A pass of a prefix, a batch of queries or training examples through a model."""

    recording: Recording
    """What is recorded."""
    positions: Tensor
    """(B, T) of every token."""
    batch: QueryBatch | None = None
    """The queries; None for a prefix or in training."""
    prefix: Prefix | None = None
    """What they follow."""
    offset: int = 0
    """How many positions further on than right behind it."""
    shift: int = 0
    """By how many positions the frame of rotary embedding is moved."""
    replacement: Replacement | None = None
    """What stands in place of attention to the prefix's demonstrations."""
    watch: Callable[[LayerAttention], None] | None = None
    """Is shown every layer's attention."""
    predicting: Tensor | None = None
    """In training, the tokens (token,) whose logits are wanted, counted over all rows; all of them without."""
    _local: dict[torch.device, tuple[Tensor, QueryBatch | None]] = field(default_factory=dict)

    @property
    def prefix_length(self) -> int:
        """Tokens of the prefix."""
        return self.prefix.length if self.prefix else 0

    def on(self, device: torch.device) -> tuple[Tensor, QueryBatch | None]:
        """Positions and batch on a layer's device."""
        # Layers of a spread model ask from several devices; each gets its copy once per pass.
        if device not in self._local:
            batch = self.batch.to(device) if self.batch is not None else None
            self._local[device] = self.positions.to(device), batch
        return self._local[device]

    def predicting_states(self, states: Tensor) -> Tensor:
        """(B, T, E) final states, or (1, token, E) of those whose logits are wanted, where these are not all."""
        device = states.device
        tokens = self.tokens_read(device) if self.predicting is None else self.predicting.to(device)
        return states if tokens is None else states.flatten(0, 1).index_select(0, tokens)[None]

    def tokens_read(self, device: torch.device) -> Tensor | None:
        """(N,) tokens whose final states are read, counted over all rows; None where all are."""
        if self.recording.purpose == "training":
            return None
        positions, batch = self.on(device)
        if batch is None:  # of a prefix, keys and values are kept
            return positions.new_empty(0)
        return batch.logit_rows * positions.shape[1] + batch.logit_tokens

    def visible(self, window: int | None, device: torch.device) -> Tensor | None:
        """(B, T, T) mask of own tokens where plain causality is not enough, else None."""
        positions, batch = self.on(device)
        branches = batch.branches if batch is not None else None
        tokens = positions.shape[1]
        if window is not None and window >= tokens:  # own tokens stand closer together than that
            window = None
        # Plain causal attention needs no mask, and fused kernels are fastest without.
        if window is None and branches is None:
            return None
        visible = torch.ones(1, tokens, tokens, dtype=torch.bool, device=device).tril()
        if branches is not None:
            # Everything sees the prompt (branch 0), and each branch itself.
            visible = visible & ((branches[:, None] == 0) | (branches[:, None] == branches[..., None]))
        if window is not None:
            # By position and not by index: branches follow the prompt directly, wherever they stand in the row.
            visible = visible & (positions[..., None] - positions[:, None] < window)
        return visible

    def record_scores(self, seen: LayerAttention) -> None:
        """Keep the probe token's scores before mask, cap and softmax, in float32 or better (definitions, section 3)."""
        query, key, probe_index = seen.query, seen.key, seen.batch.probe_index
        probe = at_least_float32(at_probe(query.transpose(1, 2), probe_index))
        # Heads of a group share their keys, so they are the rows of one product.
        of_groups = probe.unflatten(1, (key.shape[1], -1))
        own = (of_groups @ at_least_float32(key).mT).flatten(1, 2) * seen.scaling
        # What stands behind the probe token is padding or an answer, and takes no part in any figure.
        beyond = torch.arange(key.shape[2], device=key.device) > probe_index[:, None]
        self.recording.own_scores.append(own.masked_fill(beyond[:, None], 0.0).to(self.recording.device))
        if self.prefix is not None:
            keys = at_least_float32(self.prefix.keys[seen.layer][0])
            # Metrics sum prefix scores over heads, so heads of a group are summed before the product with their shared
            # keys.
            # One product a key head: a single one over all of them would copy the prefix's keys for each batch.
            scores = (of_groups.sum(2).transpose(0, 1) @ keys.mT).sum(0) * seen.scaling
            self.recording.prefix_scores.append(scores.to(self.recording.device))


def at_probe(states: Tensor, probe_index: Tensor) -> Tensor:
    """(B, ...) from (B, T, ...) at one token a row."""
    rows = torch.arange(len(probe_index), device=states.device)
    if not states.is_contiguous():
        return states[rows, probe_index]
    # Whole rows are copied many times faster than indices are looked up.
    return states.flatten(0, 1).index_select(0, rows * states.shape[1] + probe_index)
