"""Which checkpoint of an unfinished training is whole: read to its end before anything is loaded from it."""

import zipfile
from contextlib import suppress
from pathlib import Path

from lightning_icl.errors import OutputError

LAST, PREVIOUS, PART = "last.ckpt", "previous.ckpt", "last.ckpt.part"


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that can be read to its end; None where there is none at all.

    Raises:
        OutputError: there are some, and none is whole.
    """
    present = [folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()]
    for path in present:
        # A zip file read to its end checks every entry's sum; a cut one has no directory at its end.
        with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as file:
            if file.testzip() is None:
                return path
    if present:
        raise OutputError(
            f"No checkpoint in {str(folder)!r} is whole. Give another --out, or remove the folder to begin again."
        )
    return None
