"""Whether a model object is plain: projections that are one matrix each, whose parameters learn and are measured.

Adapters and quantised layers put other modules in their place. Fine-tuning would then train a part of a projection, or
nothing, without a sign.
"""

from typing import TYPE_CHECKING

from lightning_icl.errors import ModelError
from lightning_icl.models.architecture import architecture_of

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

_WRAPPERS = {"_orig_mod": "torch.compile", "module": "DataParallel or DistributedDataParallel"}


def check_plain(model: "PreTrainedModel") -> None:
    """Refuse a model object that cannot be fine-tuned and probed as it is.

    Args:
        model: a causal language model.

    Raises:
        ModelError: it is wrapped, carries adapters, or is quantised; or its architecture cannot be probed rightly.
    """
    from transformers import PreTrainedModel

    # Wrappers first: they hide the model's own class.
    for attribute, wrapper in _WRAPPERS.items():
        if isinstance(getattr(model, attribute, None), PreTrainedModel):
            raise ModelError(f"The model is wrapped by {wrapper}. Give what is inside: model.{attribute}.")
    # Adapters before the type check, since PEFT models are no PreTrainedModel.
    for name, module in model.named_modules() if hasattr(model, "named_modules") else ():
        _refuse_adapter(name, module)
    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"A causal language model of transformers is needed, not a {type(model).__name__}.")
    architecture = architecture_of(model.config)
    # `AutoModel` gives the body alone, whose path lacks its first part.
    if not hasattr(model, architecture.layers.split(".")[0]):
        raise ModelError(f"A causal language model is needed; a {type(model).__name__} has no head that scores tokens.")
    for name, module in model.named_modules():
        _refuse_quantised(name, module)
        if name.startswith(architecture.layers) and name.rsplit(".", 1)[-1] in architecture.projections:
            _check_projection(name, module)


def _refuse_adapter(name: str, module: "nn.Module") -> None:
    if type(module).__module__.split(".")[0] == "peft":
        raise ModelError(
            f"The model carries a PEFT adapter ({name or type(module).__name__}). Merge it first: "
            "model = model.merge_and_unload(), or give its folder as --adapter."
        )


def _refuse_quantised(name: str, module: "nn.Module") -> None:
    import torch

    weight = getattr(module, "weight", None)
    # Some libraries replace the weight by a method that unpacks it.
    packed = _packed(weight) if isinstance(weight, torch.Tensor) else callable(weight)
    if packed:
        raise ModelError(
            f"The model is quantised ({name}), and gradients do not reach quantised weights. Give the model it was "
            "made from."
        )


def _check_projection(name: str, module: "nn.Module") -> None:
    """It must have nothing but weight and bias."""
    own = {key for key, _ in module.named_parameters()}
    if not {"weight"} <= own <= {"weight", "bias"}:
        odd = ", ".join(sorted(own - {"weight", "bias"})[:3]) or "no weight"
        raise ModelError(
            f"The projection {name!r} has parameters of its own ({odd}). Fine-tuning needs one weight and at most one "
            "bias: merge the others into the weight first."
        )


def _packed(weight: "torch.Tensor") -> bool:
    """Whether a weight is stored as integers, or in a tensor of a quantisation library."""
    return not weight.is_floating_point() or "quant" in f"{type(weight).__module__}.{type(weight).__name__}".lower()
