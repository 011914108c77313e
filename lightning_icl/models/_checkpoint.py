"""A model folder judged by names and headers alone: which weight files are read, whether they are safe and whole.

Only files named `*.safetensors` inside the folder count as safe, whatever an index or a configuration says.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lightning_icl.errors import ModelError

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
)
_SETTINGS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
# Git checks out this text where git-lfs is not installed.
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says about one tensor."""

    dtype: str
    """Number type in the words of safetensors, such as `BF16`."""
    shape: tuple[int, ...]


def read_config(folder: Path) -> Mapping[str, Any]:
    """The content of a folder's `config.json`.

    Raises:
        ModelError: it is missing, cannot be read, or is no configuration of a model.
    """
    path = folder / CONFIG
    # Asked before `config.json`: adapter folders may lack one, and then "missing" would be the wrong advice.
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"The folder {str(folder)!r} holds a PEFT adapter. Give the model it was trained on as --model and this "
            "folder as --adapter."
        )
    if not path.is_file():
        raise ModelError(f"The folder {str(folder)!r} holds no model: {CONFIG} is missing.")
    content = read_object(path)
    if not isinstance(content.get("model_type"), str):
        raise ModelError(f"{str(path)!r} is no configuration of a model: `model_type` must name its architecture.")
    # Optional, but transformers fails late and unclearly on a damaged one.
    for name in _SETTINGS:
        if (folder / name).is_file():
            read_object(folder / name)
    return content


def check_tokenizer(folder: Path) -> None:
    """Whether a folder holds the file of a tokenizer.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    present = [folder / name for name in _TOKENIZERS if (folder / name).is_file()]
    if not present:
        raise ModelError(
            f"The folder {str(folder)!r} holds no tokenizer: {_TOKENIZERS[0]} is missing. Copy the tokenizer that the "
            "model was trained with into it."
        )
    for path in present:
        if path.suffix == ".json":
            read_object(path)


def weight_files(folder: Path, *, allow_pickle: bool = False) -> tuple[Path, ...]:
    """The safetensors files that a model's weights are read from, each there and whole.

    Args:
        folder: that holds them.
        allow_pickle: whether pickle files will do; nothing is returned where there are no others.

    Raises:
        ModelError: there are none, or one is missing, unsafe, cut short or something else.
    """
    paths = _named_files(folder)
    # Headers only: a gigabyte of weights is checked in milliseconds.
    for path in paths:
        read_header(path)
    if paths:
        return paths
    if not any(folder.glob("pytorch_model*.bin")):
        raise ModelError(f"The folder {str(folder)!r} holds no weights: {SINGLE} (or {INDEX}) is missing.")
    if not allow_pickle:
        raise ModelError(
            f"The folder {str(folder)!r} holds its weights as pickle files only, which can run code when read. Convert "
            "them to safetensors, or pass --allow-pickle if you trust them."
        )
    return ()


def read_header(path: Path) -> dict[str, Header]:
    """Names, types and shapes of the tensors in a safetensors file; the tensors themselves stay on disk.

    Raises:
        ModelError: the file is missing, cut short, empty, a git-lfs pointer, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"The weight file {str(path)!r} is missing. Download or copy the model again.")
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
        # Told apart from a damaged file, since the remedy differs.
        if start == _POINTER:
            raise ModelError(
                f"The weight file {str(path)!r} is a git-lfs pointer, not the weights. Fetch them: git lfs pull."
            )
        with safe_open(path, framework="np") as tensors:
            # Lazy slices: shapes and types come from the header, without reading data.
            headers = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            contents = {name: Header(dtype=s.get_dtype(), shape=tuple(s.get_shape())) for name, s in headers.items()}
    except (OSError, SafetensorError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise ModelError(
            f"The weight file {str(path)!r} is cut short or no safetensors file ({reason[:200]}). Download or convert "
            "it again."
        ) from error
    if not contents:
        raise ModelError(f"The weight file {str(path)!r} holds no tensor. Download or save the model again.")
    return contents


def indexed_files(index: Path) -> tuple[Path, ...]:
    """The weight files that an index names.

    Raises:
        ModelError: it is damaged, or names anything but safetensors files inside its folder.
    """
    content = read_object(index)
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{str(index)!r} is damaged: `weight_map` must name the file of each tensor.")
    # transformers reads this field without asking whether it is present.
    if not isinstance(content.get("metadata"), dict):
        raise ModelError(f"{str(index)!r} is damaged: `metadata` must be there, as an object.")
    # A dict keeps each file once: an index names one file per tensor.
    files = dict.fromkeys(_inside(index.parent, name) for name in names.values())
    return tuple(sorted(files))


def _named_files(folder: Path) -> tuple[Path, ...]:
    """The files that transformers would read: those that the configuration names, one file, or those of an index."""
    config = read_config(folder)
    # transformers would prefer the shards over the plain file without a word.
    if any(folder.glob("shard-*-model-*.safetensors")):
        raise ModelError(f"The folder {str(folder)!r} holds a distributed checkpoint. Save it as one model first.")
    explicit = config.get("transformers_weights")
    if explicit is None:
        if (folder / SINGLE).is_file():
            return (folder / SINGLE,)
        return indexed_files(folder / INDEX) if (folder / INDEX).is_file() else ()
    if isinstance(explicit, str) and explicit.endswith(".index.json"):
        return indexed_files(_inside(folder, explicit, suffix=".index.json"))
    return (_inside(folder, explicit),)


def _inside(folder: Path, name: object, suffix: str = ".safetensors") -> Path:
    """A file of the folder by the name that an index or a configuration gives it."""
    # A pure path: names are those of the checkpoint's system, and nothing is resolved yet.
    path = PurePosixPath(name) if isinstance(name, str) else None
    if path is None or path.is_absolute() or ".." in path.parts or not path.name.endswith(suffix):
        raise ModelError(
            f"The model in {str(folder)!r} names {str(name)[:80]!r} as a file of weights. Only *{suffix} files inside "
            "the folder are read; anything else could run code."
        )
    return folder / path


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    # Deep nesting raises RecursionError in the parser.
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{str(path)!r} cannot be read as JSON: {str(error)[:200]}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{str(path)!r} must hold a JSON object, not {type(content).__name__}.")
    return content
