"""Rotary embedding in three passes over queries and keys, where transformers makes five, for the length of a visit.

Axes: B batch, H heads, T tokens, D head width.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn
from transformers.models.llama import modeling_llama

Rotate = Callable[..., tuple[Tensor, Tensor]]

_NAME = "apply_rotary_pos_emb"
_APPLY, _HALF = modeling_llama.apply_rotary_pos_emb.__code__, modeling_llama.rotate_half.__code__


@contextmanager
def fast_rotary(attention: nn.Module) -> Iterator[None]:
    """Until the context ends, an attention module's family rotates in fewer passes, where it rotates as Llama does.

    Attention looks for the function in the family's own file, so that is where another stands meanwhile.
    """
    family = sys.modules[type(attention).__module__]
    if not _rotates_as_llama(family):
        yield
        return
    before = getattr(family, _NAME)
    setattr(family, _NAME, partial(_rotated, before))
    try:
        yield
    finally:
        setattr(family, _NAME, before)


def _rotates_as_llama(family: ModuleType) -> bool:
    """Whether a family's function is Llama's to the letter, which in an inner visit to the same family it is not."""
    apply, half = (getattr(getattr(family, name, None), "__code__", None) for name in (_NAME, "rotate_half"))
    if apply is None or half is None:
        return False
    # Constants of the first are its description alone.
    same_apply = (apply.co_code, apply.co_names) == (_APPLY.co_code, _APPLY.co_names)
    return same_apply and (half.co_code, half.co_consts) == (_HALF.co_code, _HALF.co_consts)


def _rotated(
    before: Rotate, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled():
        return before(query, key, cos, sin, unsqueeze_dim)
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _turned(query, cos, sin), _turned(key, cos, sin)


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`states * cos + rotate_half(states) * sin`, (B, H, T, D) and contiguous, as attention wants it."""
    half = states.shape[-1] // 2
    first, second = states[..., :half], states[..., half:]
    out = torch.mul(states, cos, out=states.new_empty(states.shape, dtype=torch.promote_types(states.dtype, cos.dtype)))
    out[..., :half].addcmul_(second, sin[..., :half], value=-1)
    out[..., half:].addcmul_(first, sin[..., half:])
    return out
