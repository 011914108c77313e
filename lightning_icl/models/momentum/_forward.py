"""The attention function that transformers calls by the name `momentum`, and the mask that goes with it.

Attention itself is left to the implementation underneath. The moving average sums what attention's mask shows, so
padding and packed documents need no word of their own; a sliding window limits attention alone. While decoding, the
state is summed anew from the cached values, which costs what attention to them costs and follows every reordering of
the cache. B batch, H query heads, K value heads, T tokens, S keys, D head width.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, PreTrainedConfig
from transformers.masking_utils import AttentionMaskInterface

from lightning_icl.attention.ema import ema_of_seen, value_ema
from lightning_icl.errors import ModelError
from lightning_icl.models.momentum.settings import layer_momentum, needed_settings

_Mask = Tensor | BlockMask | None


def momentum_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: _Mask, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention by the implementation underneath, plus the weighted EMA of values, (B, T, H, D) from (B, H, T, D).

    Dropout is attention's own; the EMA has none.

    Raises:
        ModelError: the result would be silently wrong: values cut off by a sliding window, packed documents that
            nothing marks.
    """
    if attention_mask is None and kwargs.get("cu_seq_lens_q") is not None:
        raise ModelError(
            "Documents are packed by `cu_seq_lens_q` alone. Momentum attention needs `position_ids` that restart with "
            "each document, no `attention_mask`, and `use_cache=False`."
        )
    attend = _attention_underneath(module)
    # The implementation underneath does its own part, with every mask and kernel it knows.
    out, weights = attend(module, query, key, value, attention_mask, **kwargs)
    momentum = layer_momentum(module)
    ema = _ema(momentum.eta, momentum.summed(value), query.shape[2], attention_mask, kwargs.get("sliding_window"))
    return momentum.added(out.transpose(1, 2), ema).transpose(1, 2), weights


def momentum_mask(*args: Any, config: PreTrainedConfig, kv_offset: int = 0, **kwargs: Any) -> _Mask:
    """The mask of the implementation underneath.

    Raises:
        ModelError: the cache has dropped values that the EMA still needs.
    """
    # A cache that starts later than position 0 has dropped its first tokens.
    if kv_offset > 0:
        raise _window_is_full()
    base = needed_settings(config).base
    underneath: Any = AttentionMaskInterface._global_mapping[base]
    return underneath(*args, config=config, kv_offset=kv_offset, **kwargs)


def _attention_underneath(module: nn.Module) -> Any:
    base = needed_settings(module.config).base  # type: ignore[arg-type]
    if base == "eager":  # every modelling file has its own
        # Not registered anywhere: each modelling file has a function of its own.
        return sys.modules[type(module).__module__].eager_attention_forward
    return AttentionInterface._global_mapping[base]


def _ema(eta: float | Tensor, value: Tensor, tokens: int, mask: _Mask, window: int | None) -> Tensor:
    """The EMA of the last tokens (B, K, T, D), from the values of all."""
    keys = value.shape[2]
    if mask is None and tokens > 1:  # the rest of a static cache is still empty
        return value_ema(value[:, :, :tokens], eta)[0]
    if tokens < keys:
        # Even before values are dropped, such a cache does not show which of its entries are padding.
        if window is not None and keys > window:
            raise _window_is_full()
        return ema_of_seen(value, eta, _seen(mask, tokens, keys, value.device))
    if mask is None:
        return value_ema(value, eta)[0]
    # The diagonals of the mask say all that is needed: what is padding, and where a document starts.
    present, shown = _near_diagonal(mask, tokens, value)
    restart = present.clone()
    # The first token of a row has no predecessor to be cut off from.
    restart[:, 0] = False
    # A present token that does not see its present predecessor begins a new document.
    restart[:, 1:] &= present[:, :-1] & ~shown
    return value_ema(value, eta, present=present, restart=restart)[0]


def _near_diagonal(mask: Tensor | BlockMask, tokens: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each token sees itself (B, T), which padding does not, and its predecessor (B, T - 1)."""
    batch = value.shape[0]
    if isinstance(mask, BlockMask):
        rows, index = torch.arange(batch, device=value.device)[:, None], torch.arange(tokens, device=value.device)
        # Masks do not depend on the head, so any will do.
        head = torch.zeros((), dtype=torch.long, device=value.device)
        own = mask.mask_mod(rows, head, index, index)
        before = mask.mask_mod(rows, head, index[1:], index[:-1])
    else:
        visible = _visible(mask)
        own, before = visible.diagonal(dim1=1, dim2=2), visible.diagonal(offset=-1, dim1=1, dim2=2)
    return own.expand(batch, -1), before.expand(batch, -1)


def _seen(mask: _Mask, tokens: int, keys: int, device: torch.device) -> Tensor:
    """(B or 1, T, S) which keys each token sees."""
    if mask is None:
        return torch.ones(1, tokens, keys, dtype=torch.bool, device=device)
    if not isinstance(mask, BlockMask):
        return _visible(mask)
    rows = torch.arange(mask.shape[0], device=device)[:, None, None]
    head = torch.zeros((), dtype=torch.long, device=device)
    token, key = torch.arange(tokens, device=device)[:, None], torch.arange(keys, device=device)
    return mask.mask_mod(rows, head, token, key)


def _visible(mask: Tensor) -> Tensor:
    """(B, T, S) from a mask (B, 1, T, S) that is true, or near zero, where a token sees a key."""
    # Additive masks hold 0 or the type's minimum, sometimes summed with another.
    return mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] > torch.finfo(mask.dtype).min / 2


def _window_is_full() -> ModelError:
    return ModelError(
        "A layer with a sliding window has more tokens than its window: its cache has dropped values, or does not show "
        "which are padding, but momentum attention sums all of them. Pass `use_cache=False`, or keep the text within "
        "the window."
    )
