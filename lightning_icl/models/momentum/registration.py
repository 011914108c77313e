"""Making momentum attention known to transformers, so that its `from_pretrained` loads momentum models.

The attention function is registered by name, as transformers offers. A learnt η or gate must be a parameter before
weights are read, which transformers has no way of announcing: two of its methods get a step more. Other models never
notice.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from lightning_icl.models.momentum._forward import momentum_forward, momentum_mask
from lightning_icl.models.momentum._preparation import add_learnt, configure_momentum, fill_learnt
from lightning_icl.models.momentum.settings import NAME


def enable_momentum() -> None:
    """Let transformers load and run momentum models in this process; calling it again changes nothing.

    `load_model` and `to_momentum` call it. A program that uses `from_pretrained` itself calls it once before.
    """
    # Wrapping the methods twice would run the extra steps twice.
    if NAME in AttentionInterface():
        return
    AttentionInterface.register(NAME, momentum_forward)
    AttentionMaskInterface.register(NAME, momentum_mask)
    models: Any = PreTrainedModel
    models.post_init = _with(models.post_init, before=_prepare)
    models.initialize_weights = _with(models.initialize_weights, after=fill_learnt)


def _prepare(model: PreTrainedModel) -> None:
    """The modules are made, the weights not yet read."""
    configure_momentum(model)
    add_learnt(model)


def _with(
    method: Callable[..., Any], before: Callable[[Any], None] | None = None, after: Callable[[Any], None] | None = None
) -> Callable[..., Any]:
    """The method with a step before or after it."""

    @wraps(method)
    def extended(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(self)
        result = method(self, *args, **kwargs)
        if after is not None:
            after(self)
        return result

    return extended
