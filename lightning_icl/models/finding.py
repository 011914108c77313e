"""What a model name means: a hub name, a folder, a built-in one, or `random:` for fresh weights.

Light on purpose: names are checked before anything heavy is imported.
"""

from dataclasses import dataclass
from pathlib import Path

from lightning_icl.errors import ModelError
from lightning_icl.models.checkpoint import read_config, weight_files
from lightning_icl.user_paths import input_path

BUILTIN = {"builtin": "icl-tiny", "builtin-momentum": "icl-tiny-momentum"}


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from, and what the user allows it to do."""

    name: str
    """As the user wrote it."""
    location: str
    """A folder, or a name on the hub."""
    fresh: bool = False
    """Fresh weights of the same configuration."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""
    allow_pickle: bool = False
    """Whether weights may be read from pickle files where there are no safetensors."""

    @property
    def local(self) -> bool:
        """Whether it is a folder on this machine."""
        return Path(self.location).is_dir()


def builtin_folder(name: str) -> Path:
    """The folder of a built-in model: inside the installed package, or in the checkout beside it.

    Raises:
        ModelError: the installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    for parent in (package / "checkpoints", package.parent / "checkpoints"):
        if (parent / BUILTIN[name] / "config.json").is_file():
            return parent / BUILTIN[name]
    raise ModelError(f"The built-in model {name!r} is not part of this installation. Install lightning-icl again.")


def find_model(name: str, *, trust_remote_code: bool = False, allow_pickle: bool = False) -> ModelSource:
    """What a model name means.

    Raises:
        ModelError: it names nothing, or a folder that holds no model or no safe weights.
    """
    wanted, fresh = name, False
    if name.startswith("random:"):
        wanted, fresh = name.removeprefix("random:"), True
    if not wanted:
        raise ModelError(f"{name!r} names no model. Give a hub name, a folder, `builtin` or `random:NAME`.")
    location = str(builtin_folder(wanted)) if wanted in BUILTIN else wanted
    path = input_path(location, "--model")
    if path.is_dir():
        read_config(path)
        if not fresh:
            weight_files(path, allow_pickle=allow_pickle)
        location = str(path)
    elif path.exists():
        raise ModelError(f"The model {name!r} is a file. Give the folder that holds config.json and the weights.")
    elif wanted.startswith((".", "/", "~")) or wanted.count("/") > 1 or "\\" in wanted:
        raise ModelError(f"The model folder {wanted!r} does not exist.")
    return ModelSource(
        name=name, location=location, fresh=fresh, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle
    )
