"""The last block's MLP only where its output is read: at the tokens that predict answers, and nowhere in a prefix.

Attention needs keys and values of every token, but what follows it in the last block works on each token alone, and no
other block reads the result. B batch, T own tokens, N tokens that are read, E width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from lightning_icl.models._adapters import replaced_forwards
from lightning_icl.models.architecture import architecture_of
from lightning_icl.models.forward_pass import ForwardPass


@contextmanager
def narrow_last_block(model: PreTrainedModel, under_way: Callable[[], ForwardPass | None]) -> Iterator[None]:
    """Until the context ends, the last block's MLP computes what is read and leaves 0 elsewhere.

    Args:
        model: the model.
        under_way: the pass at work; without one, and in training, nothing is left out.
    """
    architecture = architecture_of(model.config)
    block = list(model.get_submodule(architecture.layers).children())[-1]
    modules = [block.get_submodule(name) for name in architecture.mlp]
    # Around what stands there already, such as a block that computes in place.
    with replaced_forwards({module: partial(_narrowed, module.forward, under_way) for module in modules}):
        yield


def _narrowed(forward: Callable[..., Tensor], under_way: Callable[[], ForwardPass | None], *states: Any) -> Tensor:
    """`forward` at the tokens that are read: (B, T, E), or (B * T, E) as some families flatten it.

    Args:
        forward: of a module that works on each token alone.
        under_way: the pass at work.
        states: all of the same tokens; one family hands its residual to the MLP.
    """
    first = states[0]
    current = under_way()
    tokens = None if current is None else current.tokens_read(first.device)
    if tokens is None:
        return forward(*states)
    read = [each.flatten(0, -2)[tokens] for each in states]
    # In as many dimensions as the module is used to.
    out = forward(*(each[None] if first.ndim == 3 else each for each in read))
    everywhere = out.new_zeros(*first.shape[:-1], out.shape[-1])
    everywhere.flatten(0, -2)[tokens] = out.flatten(0, -2)
    return everywhere
