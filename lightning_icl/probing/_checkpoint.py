"""What a Lightning checkpoint holds of a probe: the overlay, the query vectors of its steps, and what they belong to.

The model itself is not in it: a checkpoint is restored on the same model and the same demonstrations, or refused.
"""

import hashlib
from typing import Any

import torch
from transformers import PreTrainedModel

from lightning_icl.errors import ProtocolError
from lightning_icl.models.kv import LaidOver
from lightning_icl.probing.finetuning_run import Finetuned
from lightning_icl.records import Demonstrations, KVOverlay

_KEY = "finetuning"
_PLAIN = ("learning_rate", "losses", "update_norms", "training_queries")


def to_checkpoint(
    checkpoint: dict[str, Any], tuned: Finetuned | None, model: PreTrainedModel, demonstrations: Demonstrations
) -> None:
    """Put what was learnt into a checkpoint, in place of the module's own state.

    Args:
        checkpoint: as Lightning made it.
        tuned: the fine-tuning as far as it has come.
        model: which was fine-tuned.
        demonstrations: on which it was.
    """
    # Lightning puts the module's state there, which would be the whole model.
    checkpoint["state_dict"] = {} if tuned is None else dict(tuned.overlay.tensors)
    if tuned is not None:
        # The overlay fits any model of the same shapes, so the checkpoint names the one it was learnt on.
        made_for = {"model": _digest(model), "demonstrations": demonstrations.hash}
        checkpoint[_KEY] = {name: getattr(tuned, name) for name in _PLAIN} | made_for


def from_checkpoint(
    checkpoint: dict[str, Any], model: PreTrainedModel, demonstrations: Demonstrations
) -> Finetuned | None:
    """What a checkpoint holds of a fine-tuning; None where it was saved before any.

    Args:
        checkpoint: as Lightning has read it.
        model: now under study.
        demonstrations: now in the prompt.

    Raises:
        ProtocolError: it is not a probe's, was saved between two steps, or belongs to another model or demonstrations.
        ModelError: the overlay does not fit the model.
    """
    tensors, content = checkpoint["state_dict"], checkpoint.get(_KEY)
    # Tensors without our key: another module's checkpoint, whose weights must not pass for an overlay.
    if content is None and tensors:
        raise ProtocolError("The checkpoint was not saved by an ICLProbe. Give one that was, or fit anew.")
    if content is None:
        return None
    if content["demonstrations"] != demonstrations.hash:
        raise ProtocolError(
            "The checkpoint's fine-tuning was on other demonstrations than the probe's. Use the same data, shots, "
            "seed, template and separator, or fit anew."
        )
    steps = len(content["losses"])
    if steps != len(demonstrations):
        raise ProtocolError(
            f"The checkpoint was saved after {steps} of {len(demonstrations)} steps, and a part of a fine-tuning is "
            "neither compared nor continued. Give the one that was saved at the end, or fit anew."
        )
    overlay = KVOverlay(tensors=tensors)
    LaidOver(model, overlay)  # raises if names or shapes do not fit
    if content["model"] != _digest(model):
        raise ProtocolError(
            "The checkpoint's fine-tuning was of a model with other weights. Use that model, or fit anew."
        )
    return Finetuned(overlay=overlay, **{name: content[name] for name in _PLAIN})


def _digest(model: PreTrainedModel) -> str:
    """SHA-256 over names and weights as bfloat16, which are the same in whatever wider type the model was loaded."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        # Summed as integers, which no order of summation changes; the digest must not depend on the device.
        bits = parameter.detach().to(torch.bfloat16).view(torch.int16)
        digest.update(f"{name} {tuple(bits.shape)} {int(bits.sum())}".encode())
    return digest.hexdigest()
