"""Models with momentum attention: plain models turned into them and back, their settings and their learnt η.

The settings travel in the configuration, a learnt η as a parameter of every attention module. `forward` holds
the attention function, `registration` makes transformers know all this wherever `lightning_icl` is imported.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_icl.attention.ema import DEFAULT_ETA, check_eta, learnt_eta, logit
from lightning_icl.errors import ModelError, did_you_mean
from lightning_icl.models.architecture import ARCHITECTURES, architecture_of, head_counts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

NAME = "momentum"
PARAMETER = "momentum_logit"
"""Name of the parameter of an attention module whose sigmoid is its learnt η, one entry for each value head."""
_KEY = "momentum_attention"
_BASES = ("sdpa", "eager", "flex_attention")


@dataclass(frozen=True, kw_only=True)
class MomentumSettings:
    """What a configuration says under `momentum_attention`."""

    eta: float | Sequence[float] = DEFAULT_ETA
    """η in (0, 1), of all layers or of each; where it is learnt, its first value."""
    learn: bool = False
    """Whether η is learnt, one for each value head of each layer."""
    base: str = "sdpa"
    """The attention implementation underneath: `sdpa`, `eager` or `flex_attention`."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: η does not lie strictly between 0 and 1.
            ModelError: no momentum can be added to this attention implementation.
        """
        for eta in self.eta if isinstance(self.eta, Sequence) else (self.eta,):
            check_eta(eta)
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
    given = getattr(config, _KEY, None)
    if given is None:
        return None
    if not isinstance(given, dict) or (odd := sorted(given.keys() - MomentumSettings.__dataclass_fields__.keys())):
        unknown = f" Unknown: {odd}." if isinstance(given, dict) else ""
        raise ModelError(f"{_KEY} = {given!r} in the configuration: give a mapping of eta, learn and base.{unknown}")
    return MomentumSettings(**given)


def needed_settings(config: "PreTrainedConfig") -> MomentumSettings:
    """The momentum settings of a configuration that must have some.

    Raises:
        ModelError: it has none.
    """
    settings = momentum_settings(config)
    if settings is None:
        raise ModelError(
            f"The attention implementation {NAME!r} is set, but the configuration has no {_KEY!r}. Turn the model into "
            "a momentum model with lightning_icl.to_momentum(model, eta=...), or load it with "
            f"attn_implementation={NAME!r}."
        )
    return settings


def has_momentum(model: "PreTrainedModel") -> bool:
    """Whether the model's attention runs with momentum now."""
    return model.config._attn_implementation == NAME


def layer_eta(module: nn.Module) -> float | Tensor:
    """η of an attention module: a number, or one for each value head where it is learnt."""
    learnt = getattr(module, PARAMETER, None)
    if learnt is not None:
        return learnt_eta(learnt)
    return needed_settings(module.config).of_layer(module.layer_idx)  # type: ignore[arg-type]


def to_momentum(
    model: "PreTrainedModel", *, eta: float | Sequence[float] = DEFAULT_ETA, learn: bool = False
) -> "PreTrainedModel":
    """Give a model momentum attention, in place; `save_pretrained` then keeps it.

    Args:
        model: a causal language model of a supported architecture that uses the attention interface.
        eta: η in (0, 1), of all layers or of each; where it is learnt, its first value.
        learn: whether to learn η, one for each value head of each layer, as the sigmoid of a parameter.

    Returns:
        The same model.

    Raises:
        ModelError: its attention cannot be wrapped.
        UserError: η does not lie strictly between 0 and 1.
    """
    check_wrappable(model.config)
    before = momentum_settings(model.config)
    base = before.base if before else model.config._attn_implementation
    settings = MomentumSettings(eta=list(eta) if isinstance(eta, Sequence) else eta, learn=learn, base=base)
    settings.check_layers(model.config.num_hidden_layers)
    from_momentum(model)
    setattr(model.config, _KEY, asdict(settings))
    configure_momentum(model)
    add_learnt_eta(model)
    fill_learnt_eta(model)
    return model


def from_momentum(model: "PreTrainedModel") -> "PreTrainedModel":
    """Take momentum attention off a model, in place: its other weights and its former attention are as they were."""
    settings = momentum_settings(model.config)
    if settings is None:
        return model
    for module in _attention_modules(model):
        module._parameters.pop(PARAMETER, None)
    for name in (_KEY, "attn_implementation"):
        model.config.__dict__.pop(name, None)
    model.set_attn_implementation(settings.base)
    return model


def check_wrappable(config: "PreTrainedConfig") -> None:
    """Refuse models whose attention cannot be wrapped.

    Raises:
        ModelError: with the reason and the architectures that can be.
    """
    known = sorted(name for name, row in ARCHITECTURES.items() if not row.adapter)
    if config.model_type in ARCHITECTURES and ARCHITECTURES[config.model_type].adapter:
        raise ModelError(
            f"Models of type {config.model_type!r} compute attention in their own code, past transformers' attention "
            f"interface: momentum cannot be added. Use one of: {', '.join(known)}."
        )
    if config.model_type not in ARCHITECTURES:
        raise ModelError(
            f"Momentum attention cannot be added to models of type {config.model_type!r}. "
            f"{did_you_mean(str(config.model_type), known)}"
        )
    architecture_of(config)


def configure_momentum(model: "PreTrainedModel") -> None:
    """Set a model's configuration up as it asks for; done when transformers begins to make any model.

    Raises:
        ModelError: its attention cannot be wrapped, or its settings are none.
        UserError: η does not lie strictly between 0 and 1.
    """
    config = model.config
    chosen = config._attn_implementation
    if getattr(config, _KEY, None) is None and chosen != NAME:
        return
    check_wrappable(config)
    settings = momentum_settings(config)
    if settings is None or chosen != NAME:  # asked for by name alone, or with the implementation to run underneath
        base = model.get_correct_attn_implementation(None) if chosen == NAME else chosen
        settings = MomentumSettings(**{**(getattr(config, _KEY, None) or {}), "base": base})
        setattr(config, _KEY, asdict(settings))
    settings.check_layers(config.num_hidden_layers)
    config._attn_implementation = NAME
    # In config.json: elsewhere transformers then refuses the model by this name, and does not run it without momentum.
    config.attn_implementation = NAME


def add_learnt_eta(model: "PreTrainedModel") -> None:
    """Give every attention module its learnt η, if it has one; done when the modules are there, before weights load."""
    settings = momentum_settings(model.config)
    if settings is None or not settings.learn:
        return
    for module in _attention_modules(model):
        if PARAMETER not in module._parameters:
            like = next(module.parameters())
            empty = torch.empty(head_counts(model.config)[1], dtype=like.dtype, device=like.device)
            module.register_parameter(PARAMETER, nn.Parameter(empty))


def fill_learnt_eta(model: "PreTrainedModel") -> None:
    """Give every η that no checkpoint has set its first value."""
    settings = momentum_settings(model.config)
    if settings is None or not settings.learn:
        return
    for layer, module in enumerate(_attention_modules(model)):
        parameter = module._parameters[PARAMETER]
        if parameter is not None and not parameter.is_meta and not getattr(parameter, "_is_hf_initialized", False):
            with torch.no_grad():
                parameter.fill_(logit(settings.of_layer(layer)))
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]


def _attention_modules(model: "PreTrainedModel") -> list[nn.Module]:
    """The attention modules of a causal model, or of its body alone."""
    row = ARCHITECTURES[model.config.model_type]
    path = row.layers
    if not hasattr(model, path.split(".")[0]):
        path = path.removeprefix(f"{model.base_model_prefix}.")
    return [block.get_submodule(row.attention) for block in model.get_submodule(path).children()]
