"""Which weights a model has, as one hash: equal hashes mean that two runs looked at the same model."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_icl.models._checkpoint import CONFIG, weight_files
from lightning_icl.models._peft_adapter import CONFIG as ADAPTER_CONFIG
from lightning_icl.models._peft_adapter import WEIGHTS as ADAPTER_WEIGHTS
from lightning_icl.models.finding import ModelSource
from lightning_icl.saving.record import digest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# Paths, versions and loading options change without changing the model.
_PASSING = ("_name_or_path", "transformers_version", "return_dict", "dtype", "_commit_hash")


def weights_fingerprint(source: ModelSource, config: "PretrainedConfig") -> str:
    """SHA-256 of a model's configuration and weights, before they are loaded.

    Files are read whole. On the hub a commit stands for them; fresh weights are those of the configuration.

    Args:
        source: where the model comes from.
        config: its configuration.
    """
    content = {key: value for key, value in config.to_dict().items() if key not in _PASSING}
    # Sorted keys, so that the order in the file does not matter.
    parts = [json.dumps(content, sort_keys=True, default=str)]
    if source.fresh:
        parts.append("fresh")
    elif source.local:
        # With names: the same bytes under another name may be another shard.
        parts += [f"{path.name} {digest(path)}" for path in _files(source)]
    else:
        parts += [str(source.gguf), str(commit_of(source))]
    if source.adapter is not None:
        parts += [digest(source.adapter / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def object_fingerprint(model: "PreTrainedModel") -> str:
    """SHA-256 of a model that is in memory: its configuration, and names, types and bits of its parameters."""
    import torch

    content = {key: value for key, value in model.config.to_dict().items() if key not in _PASSING}
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    for name, parameter in model.named_parameters():
        fingerprint.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        fingerprint.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return fingerprint.hexdigest()


def commit_of(source: ModelSource) -> str | None:
    """The commit of a model from the hub, by the folder of the cache that its files are read from."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if source.local:
        return None
    try:
        path = try_to_load_from_cache(source.location, source.gguf or CONFIG, revision=source.revision)
    except HFValidationError:  # a model object may have any name
        return None
    # The cache keeps each commit in a folder of its name.
    return Path(path).parent.name if isinstance(path, str) else None


def _files(source: ModelSource) -> tuple[Path, ...]:
    folder = Path(source.location)
    if source.gguf is not None:
        return (folder / source.gguf,)
    safe = weight_files(folder, allow_pickle=source.allow_pickle)
    # Pickle files count only where they were allowed and nothing safer is there.
    return safe or tuple(sorted(folder.glob("pytorch_model*.bin")))
