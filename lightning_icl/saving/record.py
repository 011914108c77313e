"""Which files of a folder this program wrote, and that nobody has changed since: the one rule of ownership.

Every folder written into keeps a record, `lightning-icl.json`, of the files written there and their hashes. What stands
in it unchanged may be replaced or removed; everything else belongs to somebody else and is left alone.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lightning_icl.errors import OutputError

RECORD = "lightning-icl.json"
_NOTE = "Files that lightning-icl wrote here, with their SHA-256. It replaces and removes no others."


def read_record(folder: Path) -> dict[str, list[str]]:
    """Hashes of the files that this program wrote, by their paths in the folder; none where nothing can be read."""
    try:
        files = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
        return {str(name): [str(digest) for digest in digests] for name, digests in files.items()}
    # An unreadable record owns nothing: everything in the folder is then left alone.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def record_text(files: Mapping[str, list[str]]) -> str:
    """The content of a record."""
    return json.dumps({"note": _NOTE, "files": dict(sorted(files.items()))}, indent=1) + "\n"


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        sha256 = hashlib.sha256()
        # In pieces: files may be larger than memory.
        while piece := file.read(1 << 20):
            sha256.update(piece)
        return sha256.hexdigest()


def files_in(folder: Path) -> Iterator[Path]:
    """Every file in a folder and in its folders; a link and an empty folder too."""
    for parent, folders, names in os.walk(folder):
        # `os.walk` lists links to folders among folders and does not follow them.
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        yield from (Path(parent) / name for name in (*names, *links))
        # An empty folder is somebody's too.
        if not folders and not names:
            yield Path(parent)


def is_own(path: Path, folder: Path, record: Mapping[str, list[str]]) -> bool:
    """Whether a file in a folder is as this program wrote it."""
    name = path.relative_to(folder).as_posix()
    # A link is never ours: what it points to may be anywhere.
    return name == RECORD or (
        name in record and path.is_file() and not path.is_symlink() and digest(path) in record[name]
    )


def strangers(folder: Path) -> list[Path]:
    """What in a folder this program did not write, or somebody has changed since; nothing in an empty folder."""
    if folder.is_symlink() or not folder.is_dir():
        # A link or a file in a folder's place belongs to somebody else.
        return [folder]
    record = read_record(folder)
    return [path for path in files_in(folder) if path != folder and not is_own(path, folder, record)]


def check_own_files(
    folder: Path, names: Iterable[str], advice: str, known: Mapping[str, list[str]] | None = None
) -> None:
    """Make sure that files that are to be written into a folder replace nothing of anybody else.

    Args:
        folder: where they go.
        names: their paths in it.
        advice: what to do otherwise.
        known: hashes of what may be replaced; by default those in the folder's record.

    Raises:
        OutputError: naming the file.
    """
    record = read_record(folder) if known is None else known
    for path in (folder / name for name in names):
        # `lexists`, since a broken link is something too.
        if os.path.lexists(path) and not is_own(path, folder, record):
            raise OutputError(
                f"{str(path)!r} was not written by lightning-icl, or was changed since, so it is left alone. {advice}"
            )


def check_replaceable(folder: Path, advice: str) -> None:
    """Make sure that nothing of anybody else is lost where a folder is replaced.

    Args:
        folder: what is to be replaced; it need not exist.
        advice: what to do otherwise.

    Raises:
        OutputError: naming what is not this program's.
    """
    if not os.path.lexists(folder):
        return
    if others := strangers(folder):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise OutputError(
            f"{str(others[0])!r}{more} was not written by lightning-icl, or was changed since, so it is left alone. "
            f"{advice}"
        )
