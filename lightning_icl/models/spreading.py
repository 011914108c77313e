"""Models larger than one device: their layers spread over the GPUs of a machine by the device map of transformers."""

from typing import TYPE_CHECKING

from lightning_icl.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightning_icl.models.finding import ModelSource


def check_spreadable(source: "ModelSource") -> None:
    """What can be said before weights are loaded.

    Raises:
        ModelError: there are no weights to spread.
    """
    if source.fresh:
        raise ModelError(f"--device-map auto spreads saved weights; {source.name!r} asks for fresh ones.")


def is_spread(model: "PreTrainedModel") -> bool:
    """Whether the model's layers stand on several devices, between which accelerate moves hidden states."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


def check_spread(model: "PreTrainedModel") -> None:
    """Refuse a model that the GPUs of this machine do not hold.

    Raises:
        ModelError: some layers were left on the processor or on disk, where they cannot be fine-tuned.
    """
    # accelerate fills what the GPUs do not hold from CPU and disk, and moves it at every pass.
    left = sorted(name for name, device in getattr(model, "hf_device_map", {}).items() if device in ("cpu", "disk"))
    if left and is_spread(model):
        raise ModelError(
            f"The GPUs of this machine do not hold the whole model: {len(left)} of its parts were left over, the first "
            f"{left[0]!r}. Use --precision bf16, more GPUs or a smaller model."
        )
