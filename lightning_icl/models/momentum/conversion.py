"""Plain models turned into momentum models and back, in place."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from lightning_icl.attention.ema import DEFAULT_ETA
from lightning_icl.attention.form_names import Form
from lightning_icl.models.momentum._preparation import (
    add_learnt,
    attention_modules,
    configure_momentum,
    fill_learnt,
)
from lightning_icl.models.momentum.registration import enable_momentum
from lightning_icl.models.momentum.settings import (
    GATE,
    KEY,
    PARAMETER,
    MomentumSettings,
    check_wrappable,
    momentum_settings,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def to_momentum(
    model: "PreTrainedModel",
    *,
    eta: float | Sequence[float] = DEFAULT_ETA,
    learn: bool = False,
    form: Form = "sum",
    gate_init: float | None = None,
) -> "PreTrainedModel":
    """Give a model momentum attention, in place; `save_pretrained` then keeps it.

    Args:
        model: a causal language model of a supported architecture that uses the attention interface.
        eta: η in (0, 1), of all layers or of each; where it is learnt, its first value.
        learn: whether to learn η, one for each value head of each layer, as the sigmoid of a parameter.
        form: `sum`, the paper's; `mean`, its weights divided by their sum η/(1 − η); or `previous`, the value of the
            token before alone, which reads no η.
        gate_init: first value of a learnt gate for each query head of each layer; 0 leaves the model unchanged until
            gates learn, and without it there are none.

    Returns:
        The same model.

    Raises:
        ModelError: its attention cannot be wrapped.
        UserError: η does not lie strictly between 0 and 1, or another setting is none.
    """
    check_wrappable(model.config)
    before = momentum_settings(model.config)
    base = before.base if before else model.config._attn_implementation
    etas = list(eta) if isinstance(eta, Sequence) else eta
    settings = MomentumSettings(eta=etas, learn=learn, form=form, gate_init=gate_init, base=base)
    settings.check_layers(model.config.num_hidden_layers)
    # Back to plain first, so that converting twice does not wrap momentum in momentum.
    from_momentum(model)
    enable_momentum()
    setattr(model.config, KEY, asdict(settings))
    configure_momentum(model)
    add_learnt(model)
    fill_learnt(model)
    return model


def from_momentum(model: "PreTrainedModel") -> "PreTrainedModel":
    """Take momentum attention off a model, in place: its other weights and its former attention are as they were."""
    settings = momentum_settings(model.config)
    if settings is None:
        return model
    for module in attention_modules(model):
        for name in (PARAMETER, GATE):
            # Popped from the dictionary: `delattr` would raise where nothing is learnt.
            module._parameters.pop(name, None)
    for key in (KEY, "attn_implementation"):
        model.config.__dict__.pop(key, None)
    model.set_attn_implementation(settings.base)
    return model
