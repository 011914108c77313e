"""What a visit to a model keeps: a prefix's keys and values, and what one forward pass recorded.

Axes: K key/value heads, P prefix tokens, D head width.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Keys and values of a prefix at every layer, batch size 1, computed once and shared by all queries."""

    length: int
    """P, the number of prefix tokens."""
    keys: tuple[Tensor, ...]
    """Per layer (1, K, P, D), after rotary embedding."""
    values: tuple[Tensor, ...]
    """Per layer (1, K, P, D)."""
    emas: tuple[Tensor, ...] = ()
    """With momentum attention, per layer (1, K, D): the values' moving average as the first own token meets it."""


@dataclass(kw_only=True)
class Recording:
    """What one forward pass recorded, layer by layer."""

    purpose: Literal["prefix", "probe", "training"]
    """Keys and values of all tokens, what metrics need at probe tokens, or query vectors of all tokens."""
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    emas: list[Tensor] = field(default_factory=list)
    queries: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    own_scores: list[Tensor] = field(default_factory=list)
    prefix_scores: list[Tensor] = field(default_factory=list)
    windows: list[int | None] = field(default_factory=list)
    device: torch.device
    """Where all but keys, values and moving averages are gathered; those stay with their layer."""
