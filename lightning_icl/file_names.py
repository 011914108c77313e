"""Names of files and folders: those made of other names, valid on every system, and paths as users type them."""

from pathlib import Path

from lightning_icl.errors import UserError

_LONGEST = 100
_LONGEST_PART = 255  # bytes of one name in a path, in nearly every file system
_MOST_BYTES = 200  # of 255 that file systems allow, with room for what stands around a name
_SEPARATORS = '/\\:*?"<>|'  # of any system, and what shells and Windows read as patterns
# Files that stand beside the folders of tasks.
_TAKEN = ("config.yaml", "lightning-icl.json", "plan.json", "sweep.csv", "sweep.parquet", "summary.csv")
NAME_RULE = f"A name has at most {_LONGEST} printable characters, none of {_SEPARATORS}, and begins with no dot."
"""What is allowed, for messages."""


def fault_of_name(name: object) -> str | None:
    """What keeps a name from being that of a file or folder; None where nothing does.

    >>> fault_of_name("my-task"), fault_of_name("../victim")
    (None, "it holds '/'")

    Returns:
        The end of a sentence that begins with the name.
    """
    # The most basic faults first, so that later messages can show the name.
    if not isinstance(name, str) or not name.strip():
        return "it is empty"
    if len(name) > _LONGEST:
        return f"it is {len(name):,} characters long"
    if not name.isprintable():  # control characters, line breaks and lone surrogates
        return "it holds a character that cannot be printed"
    if (size := len(name.encode())) > _MOST_BYTES:
        return f"it takes {size} bytes, and {_MOST_BYTES} are allowed"
    if separator := next((letter for letter in name if letter in _SEPARATORS), None):
        return f"it holds {separator!r}"
    if name.startswith("."):
        return "it begins with a dot"
    # Windows drops both silently, so that two names become one folder.
    if name != name.strip() or name.endswith("."):
        return "it begins or ends with a blank, or ends with a dot"
    # Case-folded: some file systems take `Plan.json` for `plan.json`.
    return "a run has a file of that name" if name.casefold() in _TAKEN else None


def folder_name(text: str) -> str:
    """A name made of any text, such as a model's, which is one component of a path.

    >>> folder_name("org/model 1.3B"), folder_name("../..")
    ('org-model-1.3B', 'unnamed')
    """
    letters = "".join(letter if letter.isalnum() or letter in ".-_" else "-" for letter in text.strip("./"))
    # Cut by letters, then by bytes, and never in the middle of a letter.
    return letters[:_LONGEST].encode()[:_MOST_BYTES].decode(errors="ignore").strip(".-") or "unnamed"


def input_path(text: str, flag: str) -> Path:
    """The file or folder that a flag names, `~` resolved; whether it exists is for others to say.

    Raises:
        UserError: no file can have that name.
    """
    # Python raises errors of its own for both, long after the flag was read.
    if "\0" in text or any(len(part.encode(errors="surrogateescape")) > _LONGEST_PART for part in Path(text).parts):
        raise UserError(f"{flag} {text!r}: no file has such a name. Give a path to one that exists.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{flag} {text!r}: there is no such user. Write the path out.") from error
