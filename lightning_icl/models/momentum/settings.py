"""What a configuration says about momentum attention, and which models can have it.

The settings travel in the configuration, a learnt η and a gate as parameters of every attention module.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lightning_icl.attention.ema import DEFAULT_ETA, check_eta, learnt_eta
from lightning_icl.attention.form_names import Form, check_form
from lightning_icl.attention.forms import Momentum, momentum_of
from lightning_icl.errors import ModelError, UserError, did_you_mean
from lightning_icl.models.architecture import ARCHITECTURES, architecture_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

NAME = "momentum"
PARAMETER = "momentum_logit"
"""Name of the parameter of an attention module whose sigmoid is its learnt η, one entry for each value head."""
GATE = "momentum_gate"
"""Name of the parameter that holds its gates, one entry for each query head."""
KEY = "momentum_attention"
_BASES = ("sdpa", "eager", "flex_attention")


@dataclass(frozen=True, kw_only=True)
class MomentumSettings:
    """What a configuration says under `momentum_attention`."""

    eta: float | Sequence[float] = DEFAULT_ETA
    """η in (0, 1), of all layers or of each; where it is learnt, its first value. Form `previous` reads none."""
    learn: bool = False
    """Whether η is learnt, one for each value head of each layer."""
    form: Form = "sum"
    """`sum`, the paper's; `mean`, divided by η/(1 − η); or `previous`, the value before alone."""
    gate_init: float | None = None
    """First value of a learnt gate for each query head of each layer; none for no gates."""
    base: str = "sdpa"
    """The attention implementation underneath: `sdpa`, `eager` or `flex_attention`."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: η does not lie strictly between 0 and 1, there is no such form, it has no η to learn, or a gate
                starts at no number.
            ModelError: no momentum can be added to this attention implementation.
        """
        for eta in self.eta if isinstance(self.eta, Sequence) else (self.eta,):
            check_eta(eta)
        if check_form(self.form) == "previous" and self.learn:
            raise UserError("The form 'previous' has no eta to learn. Leave learn out, or choose 'sum' or 'mean'.")
        if self.gate_init is not None and not math.isfinite(self.gate_init):
            raise UserError(f"gate_init = {self.gate_init}: give a finite number, or leave it out for no gates.")
        if self.base not in _BASES:
            raise ModelError(
                f"Momentum attention cannot wrap the attention implementation {self.base!r}. Load the model with one "
                f"of {', '.join(_BASES)}; sdpa runs flash kernels by itself where they serve."
            )

    def check_layers(self, layers: int) -> None:
        """Raise a ModelError where there is not one η for each layer."""
        if isinstance(self.eta, Sequence) and len(self.eta) != layers:
            raise ModelError(f"{len(self.eta)} values of eta for {layers} layers: give one number, or one for each.")

    def of_layer(self, layer: int) -> float:
        """η of one layer, as the settings have it."""
        return self.eta[layer] if isinstance(self.eta, Sequence) else self.eta


def momentum_settings(config: "PreTrainedConfig") -> MomentumSettings | None:
    """The momentum settings of a configuration; None where attention is plain.

    Raises:
        ModelError: an unknown setting.
    """
    content = getattr(config, KEY, None)
    if content is None:
        return None
    if not isinstance(content, dict) or (odd := sorted(content.keys() - MomentumSettings.__dataclass_fields__.keys())):
        unknown = f" Unknown: {odd}." if isinstance(content, dict) else ""
        raise ModelError(
            f"{KEY} = {content!r} in the configuration: give a mapping of any of "
            f"{', '.join(MomentumSettings.__dataclass_fields__)}.{unknown}"
        )
    return MomentumSettings(**content)


def needed_settings(config: "PreTrainedConfig") -> MomentumSettings:
    """The momentum settings of a configuration that must have some.

    Raises:
        ModelError: it has none.
    """
    settings = momentum_settings(config)
    if settings is None:
        raise ModelError(
            f"The attention implementation {NAME!r} is set, but the configuration has no {KEY!r}. Turn the model into "
            "a momentum model with lightning_icl.to_momentum(model, eta=...), or load it with "
            f"attn_implementation={NAME!r}."
        )
    return settings


def has_momentum(model: "PreTrainedModel") -> bool:
    """Whether the model's attention runs with momentum now."""
    return model.config._attn_implementation == NAME


def layer_momentum(module: nn.Module) -> Momentum:
    """The momentum of an attention module, with what it has learnt by now."""
    settings = needed_settings(module.config)  # type: ignore[arg-type]
    learnt = getattr(module, PARAMETER, None)
    eta = settings.of_layer(module.layer_idx) if learnt is None else learnt_eta(learnt)  # type: ignore[arg-type]
    return momentum_of(settings.form, eta, getattr(module, GATE, None))


def learnt_momentum(model: nn.Module) -> dict[str, list[Tensor]]:
    """What a model has learnt of momentum by now: by name, `eta` and `gate`, one value for each head of each layer.

    Names of which nothing is learnt are missing.
    """
    values = [(name, value.detach()) for name, value in model.named_parameters()]
    etas = [learnt_eta(value) for name, value in values if name.endswith(PARAMETER)]
    gates = [value for name, value in values if name.endswith(GATE)]
    return {name: layers for name, layers in (("eta", etas), ("gate", gates)) if layers}


def check_wrappable(config: "PreTrainedConfig") -> None:
    """Refuse models whose attention cannot be wrapped.

    Raises:
        ModelError: with the reason and the architectures that can be.
    """
    wrappable = sorted(name for name, row in ARCHITECTURES.items() if not row.adapter)
    row = ARCHITECTURES.get(config.model_type)
    if row is not None and row.adapter:
        raise ModelError(
            f"Models of type {config.model_type!r} compute attention in their own code, past transformers' attention "
            f"interface: momentum cannot be added. Use one of: {', '.join(wrappable)}."
        )
    if row is None:
        raise ModelError(
            f"Momentum attention cannot be added to models of type {config.model_type!r}. "
            f"{did_you_mean(str(config.model_type), wrappable)}"
        )
    # Also refuses what cannot be probed: a momentum model that no command can study helps nobody.
    architecture_of(config)
