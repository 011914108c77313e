"""What a model name means: a hub name, a folder, a built-in one, or `random:` for fresh weights.

Imports nothing heavy: names are checked before anything slow is loaded.
"""

from dataclasses import dataclass
from pathlib import Path

from lightning_icl.errors import ModelError
from lightning_icl.file_names import input_path
from lightning_icl.models._checkpoint import read_config, weight_files
from lightning_icl.models._gguf import check_start
from lightning_icl.models._peft_adapter import check_adapter
from lightning_icl.models.packaged import PACKAGED, packaged_file
from lightning_icl.models.settings import ModelSettings

BUILTIN = {"builtin": "icl-tiny", "builtin-momentum": "icl-tiny-momentum"}


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from, and what the user allows it to do."""

    name: str
    """As the user wrote it."""
    location: str
    """A folder, or a name on the hub."""
    gguf: str | None = None
    """Name of the GGUF file there that holds everything; None where configuration and weights are apart."""
    fresh: bool = False
    """Fresh weights of the same configuration."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""
    allow_pickle: bool = False
    """Whether weights may be read from pickle files where there are no safetensors."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None for its default."""
    adapter: Path | None = None
    """Folder of a PEFT adapter to be merged into the weights."""

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
    # Installed, the checkpoints are inside the package; in a checkout they stand beside it.
    for parent in (package / "checkpoints", package.parent / "checkpoints"):
        if (parent / BUILTIN[name] / "config.json").is_file():
            return parent / BUILTIN[name]
    raise ModelError(f"The built-in model {name!r} is not part of this installation. Install lightning-icl again.")


def find_model(
    name: str,
    *,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    revision: str | None = None,
    adapter: str | None = None,
) -> ModelSource:
    """What a model name means.

    Args:
        name: as the user writes it.
        trust_remote_code: whether code that comes with the model may run.
        allow_pickle: whether weights may be read from pickle files where there are no safetensors.
        revision: branch, tag or commit on the hub.
        adapter: folder of a PEFT adapter to be merged into the model.

    Raises:
        ModelError: it names nothing, or a folder that holds no model or no safe weights.
    """
    fresh = name.startswith("random:")
    plain = name.removeprefix("random:")
    if not plain:
        raise ModelError(f"{name!r} names no model. Give a hub name, a folder, `builtin` or `random:NAME`.")
    if fresh and adapter is not None:
        raise ModelError(f"--adapter changes saved weights; --model {name!r} asks for fresh ones.")
    location, gguf = _place(plain, fresh, allow_pickle)
    # Silently ignored, the flag would suggest that a revision was chosen.
    if revision is not None and Path(location).is_dir():
        raise ModelError(
            f"--revision {revision!r}: only models on the hub have revisions; {plain!r} is on this machine."
        )
    return ModelSource(
        name=name,
        location=location,
        gguf=gguf,
        fresh=fresh,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        revision=revision,
        adapter=None if adapter is None else check_adapter(input_path(adapter, "--adapter")),
    )


def find_source(settings: ModelSettings, name: str | None = None) -> ModelSource:
    """The model that settings name, or another with the same permissions.

    Raises:
        ModelError: as `find_model`.
    """
    return find_model(
        name or settings.model,
        trust_remote_code=settings.trust_remote_code,
        allow_pickle=settings.allow_pickle,
        revision=settings.revision,
        adapter=settings.adapter,
    )


def _place(name: str, fresh: bool, allow_pickle: bool) -> tuple[str, str | None]:
    """Folder or hub name of a model, and its GGUF file there."""
    if name in PACKAGED:
        file = packaged_file(name)
        check_start(file)
        return str(file.parent), file.name
    path = builtin_folder(name) if name in BUILTIN else input_path(name, "--model")
    # A folder wins over a hub name, as in transformers.
    if path.is_dir():
        read_config(path)
        if not fresh:
            weight_files(path, allow_pickle=allow_pickle)
        return str(path), None
    # Any other existing file must be GGUF, or it is refused with the reason.
    if path.exists():
        check_start(path)
        return str(path.parent), path.name
    # What looks like a path and does not exist is a typing mistake, not a name on the hub.
    if name.startswith((".", "/", "~")) or "\\" in name:
        raise ModelError(f"The model {name!r} does not exist: there is no such folder or file.")
    parts = name.split("/")
    # OWNER/NAME/FILE.gguf on the hub.
    if len(parts) == 3 and name.endswith(".gguf"):
        return "/".join(parts[:2]), parts[2]
    if len(parts) > 2 or name.endswith(".gguf"):
        raise ModelError(
            f"The model {name!r} does not exist on this machine, and names on the hub are OWNER/NAME, or "
            "OWNER/NAME/FILE.gguf."
        )
    return name, None
