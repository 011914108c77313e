"""Every attention layer of a model calls one function for the length of a visit, whatever its architecture.

Most families ask transformers' attention interface, where the function is registered; the others have adapters. Axes: B
batch, H heads, T own tokens, D head width.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from lightning_icl.errors import ModelError
from lightning_icl.models._adapters import adapted

Way = Callable[..., Tensor]
"""What attends for one layer: (B, T, H, D) from query, key and value (B, heads, T, D), and by name scaling, softcap,
window and position_bias."""

_NAME = "lightning_icl"
# By attention module, what attends for it. Weak, so that a forgotten visit does not keep a model alive.
_OPEN: WeakKeyDictionary[nn.Module, Way] = WeakKeyDictionary()


@contextmanager
def routed(model: PreTrainedModel, ways: Mapping[nn.Module, Way]) -> Iterator[None]:
    """Until the context ends, attention layers call what attends for them, and no mask is built.

    Args:
        model: the model.
        ways: by attention module.
    """
    # Here and not on import, which must leave transformers as it is.
    AttentionInterface.register(_NAME, attend)
    # Composite models have several configurations, and each layer reads its own.
    configs = {id(module.config): module.config for module in model.modules() if isinstance(module, PreTrainedModel)}
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        for config, _ in before:
            config._attn_implementation = _NAME
        _OPEN.update(ways)
        with adapted(model, attend):
            yield
    finally:
        for module in ways:
            _OPEN.pop(module, None)
        for config, implementation in before:
            config._attn_implementation = implementation


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
    # The registration outlives the visit, so a configuration that still names it must be refused.
    if module not in _OPEN:
        raise ModelError(f"The attention implementation {_NAME!r} works only while a Capture of the model is open.")
    if kwargs.get("s_aux") is not None:
        raise ModelError("This model's attention has sinks, which take part of the softmax: it cannot be probed.")
    if dropout:
        raise ModelError("Attention dropout is on; the probe and the fine-tuning need the model in eval mode.")
    output = _OPEN[module](
        query,
        key,
        value,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        window=sliding_window,
        position_bias=position_bias,
    )
    return output, None
