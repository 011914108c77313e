"""Tensors as safetensors files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> None:
    """Write tensors with the permissions that other files get, which the library makes the owner's alone.

    Raises:
        OSError: they cannot be written; a full disk is what it is with every other file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # safetensors makes files readable for their owner only; others of a run are as the user's umask has them.
    path.touch()
    mode = path.stat().st_mode
    saved = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(saved, path, metadata=dict(metadata))
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)
