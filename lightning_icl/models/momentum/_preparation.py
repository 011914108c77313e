"""Steps that make a model of plain modules a momentum model: its configuration, its learnt η and gates, and their
first values.

They are taken while transformers makes a model, and when a finished one is converted.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import nn

from lightning_icl.attention.ema import logit
from lightning_icl.models.architecture import ARCHITECTURES, head_counts
from lightning_icl.models.momentum.settings import (
    GATE,
    KEY,
    NAME,
    PARAMETER,
    MomentumSettings,
    check_wrappable,
    momentum_settings,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def configure_momentum(model: "PreTrainedModel") -> None:
    """Set a model's configuration up as it asks for; done while transformers makes any model.

    Raises:
        ModelError: its attention cannot be wrapped, or its settings are none.
        UserError: η does not lie strictly between 0 and 1.
    """
    config = model.config
    chosen = config._attn_implementation
    # Any model passes here; only those that ask for momentum are touched.
    if getattr(config, KEY, None) is None and chosen != NAME:
        return
    check_wrappable(config)
    settings = momentum_settings(config)
    if settings is None or chosen != NAME:  # asked for by name alone, or with the implementation to run underneath
        base = model.get_correct_attn_implementation(None) if chosen == NAME else chosen
        settings = MomentumSettings(**{**(getattr(config, KEY, None) or {}), "base": base})
        setattr(config, KEY, asdict(settings))
    # Raised here, while the model is made, and not at its first forward pass.
    settings.check_layers(config.num_hidden_layers)
    config._attn_implementation = NAME
    # In config.json: elsewhere transformers then refuses the model by this name, and does not run it without momentum.
    config.attn_implementation = NAME


def add_learnt(model: "PreTrainedModel") -> None:
    """Give attention modules their learnt η and gates, if any; done when the modules are there, before weights load."""
    heads, kv_heads, _ = head_counts(model.config) if momentum_settings(model.config) else (0, 0, 0)
    for module, first in _first_values(model):
        # Beside its module's own parameters in type and device, as loading expects.
        like = next(module.parameters())
        # Body and causal model both call `post_init`.
        for name in (name for name in first if name not in module._parameters):
            size = heads if name == GATE else kv_heads
            empty = torch.empty(size, dtype=like.dtype, device=like.device)
            module.register_parameter(name, nn.Parameter(empty))


def fill_learnt(model: "PreTrainedModel") -> None:
    """Give every η and gate that no checkpoint has set its first value."""
    for module, first in _first_values(model):
        for name, value in first.items():
            parameter = module._parameters[name]
            # Loaded from a checkpoint, or still without content: left alone.
            if parameter is not None and not parameter.is_meta and not getattr(parameter, "_is_hf_initialized", False):
                with torch.no_grad():
                    parameter.fill_(value)
                parameter._is_hf_initialized = True  # type: ignore[attr-defined]


def _first_values(model: "PreTrainedModel") -> list[tuple[nn.Module, dict[str, float]]]:
    """Each attention module with the names of what momentum learns in it, and the values that learning starts from."""
    settings = momentum_settings(model.config)
    if settings is None:
        return []
    gate = {} if settings.gate_init is None else {GATE: settings.gate_init}
    return [
        (module, {**({PARAMETER: logit(settings.of_layer(layer))} if settings.learn else {}), **gate})
        for layer, module in enumerate(attention_modules(model))
    ]


def attention_modules(model: "PreTrainedModel") -> list[nn.Module]:
    """The attention modules of a causal model, or of its body alone."""
    # The body alone has the same path without the causal model's prefix.
    row = ARCHITECTURES[model.config.model_type]
    path = row.layers
    if not hasattr(model, path.split(".")[0]):
        path = path.removeprefix(f"{model.base_model_prefix}.")
    return [block.get_submodule(row.attention) for block in model.get_submodule(path).children()]
