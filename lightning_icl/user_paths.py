"""Paths as a user writes them."""

from pathlib import Path

from lightning_icl.errors import UserError

_LONGEST = 255  # bytes of a name, in nearly every file system


def input_path(given: str, flag: str) -> Path:
    """The file or folder that a flag names, `~` resolved; whether it exists is for others to say.

    Raises:
        UserError: no file can have that name.
    """
    # Python raises errors of its own for both, long after the flag was read.
    if "\0" in given or any(len(part.encode(errors="surrogateescape")) > _LONGEST for part in Path(given).parts):
        raise UserError(f"{flag} {given!r}: no file has such a name. Give a path to one that exists.")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise UserError(f"{flag} {given!r}: there is no such user. Write the path out.") from error
