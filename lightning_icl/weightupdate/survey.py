"""What held-out prompts show of each head in context: the mean query, which is the expansion point, and the linear fit.

Axes: B batch, H query heads, T own tokens, D head width.
"""

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from lightning_icl.attention.ladder import (
    PrefixUpdate,
    SecondOrder,
    SharedTokens,
    climb,
    jacobians,
    linear_update,
    second_order,
)
from lightning_icl.attention.prefix import join_attention
from lightning_icl.models.capture import Capture
from lightning_icl.models.recording import Prefix
from lightning_icl.models.replacement import Replacement
from lightning_icl.models.scope import Scope
from lightning_icl.records import QueryBatch


class Survey(Replacement):
    """A pass that replaces nothing and adds up what the rungs are built from.

    Args:
        layers: how many the model has.
        bos: how many tokens the prefix has before the demonstrations.
        scope: whose queries count: the probe token's, or those of all own tokens.
    """

    def __init__(self, layers: int, bos: int, scope: Scope) -> None:
        # Scope "alone" looks at the probe token too; only what the others see differs.
        super().__init__(bos, "query" if scope == "query" else "probe")
        self._layers = range(layers)
        self._batch: QueryBatch | None = None
        self._demonstrations: dict[int, SharedTokens] = {}
        self._linear: dict[int, Tensor] = {}
        self._sums: dict[int, Tensor] = {}

    @property
    def layers(self) -> Collection[int]:
        """All of them."""
        return self._layers

    def of(self, capture: Capture, prefix: Prefix, batches: Iterable[QueryBatch]) -> "Survey":
        """Look at all held-out prompts in context.

        Args:
            capture: an open visit to the model.
            prefix: BOS and demonstrations.
            batches: the prompts.
        """
        for batch in batches:
            self._batch = batch.to(capture.model.device)
            capture.observe(self._batch, prefix, replacement=self)
        self._batch = None
        return self

    def meet(self, layer: int, query: Tensor, own: Tensor, own_lse: Tensor, demonstrations: SharedTokens) -> Tensor:
        """Softmax attention to the demonstrations, looked at."""
        joined = join_attention(own, own_lse, *demonstrations.attend(query))
        # Once per layer: the demonstrations do not change with the batch.
        if layer not in self._demonstrations:
            self._demonstrations[layer], self._linear[layer] = demonstrations, demonstrations.linear()
        linear = linear_update(self._linear[layer], query).double()
        real = self._real(query).unsqueeze(-1)
        one = torch.ones_like(linear[..., :1])
        # β is a fit by least squares: Σ (ΔW q · change) / Σ (ΔW q)².
        fit, square = linear * (joined - own).double(), linear.square()
        seen = torch.cat([query.double(), one, fit.sum(-1, keepdim=True), square.sum(-1, keepdim=True)], -1)
        # Sums only, so that prompts need not be kept.
        self._sums[layer] = self._sums.get(layer, 0.0) + torch.where(real, seen, 0.0).sum((0, 2))
        return joined

    def _real(self, query: Tensor) -> Tensor:
        """(B, 1, T): which tokens belong to a prompt; what lies behind its probe token is padding or an answer."""
        assert self._batch is not None
        last = self._batch.probe_index.to(query.device)
        if self.scope == "probe":
            # Only probe tokens arrive in this scope, and all of them are of prompts.
            return torch.ones_like(last, dtype=torch.bool)[:, None, None]
        return (torch.arange(query.shape[2], device=query.device) <= last[:, None])[:, None]

    def point(self, layer: int) -> Tensor:
        """(H, D): the mean query, q̄, in float64."""
        sums = self._sums[layer]
        # The last three columns are count, fit and square.
        return sums[:, :-3] / sums[:, -3:-2]

    def jacobians(self, layer: int, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
        """(B, H, D, D): derivatives at q̄ of attention to other tokens, scored as the demonstrations are.

        Args:
            layer: of the model.
            key: (B, K, P, D), of tokens that stand side by side.
            value: (B, K, P, D).
            visible: (B, P), false for padding.
        """
        shown = self._demonstrations[layer]
        bias = None
        if shown.bias is not None:  # ALiBi: a straight line in each head, of which only differences matter
            step = shown.bias[:, -1:] - shown.bias[:, -2:-1]
            bias = step * torch.arange(key.shape[2], device=step.device)
        return jacobians(
            key, value, self.point(layer), scaling=shown.scaling, softcap=shown.softcap, bias=bias, visible=visible
        )

    def factor(self, layer: int) -> Tensor:
        """(H): β, by which ΔW q comes closest to what the demonstrations change in attention's output."""
        return self._sums[layer][:, -2] / self._sums[layer][:, -1]

    def expansion(self, layer: int) -> SecondOrder:
        """Attention to the demonstrations about q̄."""
        return second_order(self._demonstrations[layer], self.point(layer))

    def rungs(self) -> dict[str, Mapping[int, PrefixUpdate]]:
        """Every rung of the ladder, by name an update for each layer."""
        by_layer = {
            layer: climb(self._demonstrations[layer], self.point(layer), self.factor(layer)) for layer in self._layers
        }
        # All layers have the same rungs.
        names = list(by_layer[0])
        return {name: {layer: updates[name] for layer, updates in by_layer.items()} for name in names}
