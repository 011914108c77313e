"""Folders that outputs go to: as the user names them, or named after the model and the time."""

from datetime import datetime
from itertools import count
from pathlib import Path

from lightning_icl.errors import OutputError
from lightning_icl.file_names import folder_name

_LONGEST, _LONGEST_PATH = 255, 3500  # bytes; most systems take 4,096, and files are made inside


def output_path(text: str, flag: str = "--out") -> Path:
    """The folder or file that a flag names.

    Raises:
        OutputError: it is empty, too long, cannot be printed, or begins with the home of somebody unknown.
    """
    fault = None
    if not text.strip():
        fault = "it is empty"
    elif not text.isprintable():
        fault = "it holds a character that cannot be printed"
    elif any(len(part.encode()) > _LONGEST for part in Path(text).parts) or len(text.encode()) > _LONGEST_PATH:
        fault = f"it is too long: a name may have {_LONGEST} bytes, and all of it {_LONGEST_PATH:,}"
    if fault is not None:
        raise OutputError(f"{flag} {_short(text)!r}: {fault}. Give another path; '.' is the current folder.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise OutputError(f"{flag} {_short(text)!r}: whose home is meant is not known. Give another path.") from error


def default_folder(model: str) -> Path:
    """`runs/MODEL-DATE-TIME`, with a number behind it where that exists; made, so that no other run takes it.

    Raises:
        OutputError: it cannot be made.
    """
    name = f"{folder_name(Path(model).name)[:50]}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in count(1):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            folder.parent.mkdir(exist_ok=True)
            # Made at once, since two runs may start in the same second.
            folder.mkdir()
        except FileExistsError:
            if folder.parent.is_dir():
                continue
            raise OutputError("'runs' is a file. Give a folder with --out.") from None
        except OSError as error:
            raise OutputError(f"{str(folder)!r} cannot be made: {error.strerror or error}. Give --out.") from error
        return folder
    raise AssertionError("numbers do not end")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
