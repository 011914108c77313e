"""What stands in place of attention to the demonstrations while a model is visited: in which layers, for which tokens.

Axes: B batch, H heads, T own tokens, D head width.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from lightning_icl.attention.ladder import PrefixUpdate, SharedTokens
from lightning_icl.attention.prefix import join_attention
from lightning_icl.errors import ModelError
from lightning_icl.models.scope import Scope
from lightning_icl.records import QueryBatch


class Replacement(ABC):
    """A pass in which some tokens meet the demonstrations in another way; BOS and own tokens are attended to as ever.

    Args:
        bos: how many tokens the prefix has before the demonstrations.
        scope: which tokens.
    """

    def __init__(self, bos: int, scope: Scope) -> None:
        self.bos, self.scope = bos, scope

    @property
    @abstractmethod
    def layers(self) -> Collection[int]:
        """Layers in which it applies; attention of the others stays exact."""

    @abstractmethod
    def meet(self, layer: int, query: Tensor, own: Tensor, own_lse: Tensor, demonstrations: SharedTokens) -> Tensor:
        """Attention output (B, H, T, D) of some tokens.

        Args:
            layer: one of `layers`.
            query: (B, H, T, D).
            own: attention to own tokens and BOS.
            own_lse: log-sum-exp of their scores.
            demonstrations: those of the prefix.
        """

    def attend(
        self,
        layer: int,
        query: Tensor,
        own: Tensor,
        own_lse: Tensor,
        prefix: SharedTokens,
        window: int | None,
        batch: QueryBatch,
    ) -> Tensor:
        """Attention of all tokens to prefix and own tokens (B, H, T, D).

        Args:
            layer: one of `layers`.
            query: (B, H, T, D).
            own: attention to the own tokens alone.
            own_lse: log-sum-exp of their scores.
            prefix: BOS and demonstrations.
            window: how far a token sees, where that cuts the input.
            batch: the queries.

        Raises:
            ModelError: which demonstrations are seen differs from query to query.
        """
        # A window would give each query its own set of demonstration tokens, and one update for all is the point.
        if window is not None:
            raise ModelError(
                f"Layer {layer} sees the last {window} tokens only, so that each query meets other demonstration "
                "tokens: they make no one update. Use fewer --shots, or a model without a sliding window."
            )
        if self.scope == "query":
            return self._met(layer, prefix, query, own, own_lse)
        rows = torch.arange(len(own), device=own.device)
        # An index of one token per row, for all heads.
        probe = rows, slice(None), batch.probe_index
        replaced = self._met(layer, prefix, *(states[probe].unsqueeze(2) for states in (query, own, own_lse)))
        # The other tokens see the demonstrations as ever, or BOS alone.
        seen = prefix if self.scope == "probe" else prefix.part(0, self.bos)
        # Cloned: own attention is still needed by the caller, and the probe's row is written below.
        others = join_attention(own, own_lse, *seen.attend(query)) if seen.key.shape[2] else own.clone()
        others[probe] = replaced[:, :, 0]
        return others

    def _met(self, layer: int, prefix: SharedTokens, query: Tensor, own: Tensor, own_lse: Tensor) -> Tensor:
        # BOS joins the own tokens: only the demonstrations are replaced.
        if self.bos:
            out, lse = prefix.part(0, self.bos).attend(query)
            own, own_lse = join_attention(own, own_lse, out, lse), torch.logaddexp(own_lse, lse)
        return self.meet(layer, query, own, own_lse, prefix.part(self.bos))


class Updated(Replacement):
    """Updates made beforehand stand in place of the demonstrations.

    Args:
        updates: by layer.
        bos: how many tokens the prefix has before the demonstrations.
        scope: which tokens.
    """

    def __init__(self, updates: Mapping[int, PrefixUpdate], bos: int, scope: Scope) -> None:
        super().__init__(bos, scope)
        self.updates = updates

    @property
    def layers(self) -> Collection[int]:
        """Layers that have an update."""
        return self.updates

    def meet(self, layer: int, query: Tensor, own: Tensor, own_lse: Tensor, demonstrations: SharedTokens) -> Tensor:
        """The update's answer; the demonstrations are not looked at."""
        return self.updates[layer].join(query, own, own_lse)
