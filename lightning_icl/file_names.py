"""Names that become files and folders: one component of a path, printable, and short enough for every system."""

_LONGEST = 100
_SEPARATORS = '/\\:*?"<>|'  # of any system, and what shells and Windows read as patterns


def fault_of_name(name: object) -> str | None:
    """What keeps a name from being that of a file or folder; None where nothing does.

    >>> fault_of_name("my-task"), fault_of_name("../victim")
    (None, "it holds '/'")

    Returns:
        The end of a sentence that begins with the name.
    """
    if not isinstance(name, str) or not name.strip():
        return "it is empty"
    if len(name) > _LONGEST or len(name.encode("utf-8", "replace")) > 2 * _LONGEST:
        return f"it is {len(name):,} characters long, and {_LONGEST} are allowed"
    if not name.isprintable():  # control characters, line breaks and lone surrogates
        return "it holds a character that cannot be printed"
    if separator := next((letter for letter in name if letter in _SEPARATORS), None):
        return f"it holds {separator!r}"
    if name.startswith("."):
        return "it begins with a dot"
    if name != name.strip() or name.endswith("."):
        return "it begins with a blank, or ends in a blank or a dot"
    return None


def name_rule() -> str:
    """What is allowed, as a sentence for messages."""
    return f'Give a name of at most {_LONGEST} printable characters without / \\ : * ? " < > | that begins with no dot.'


def folder_name(text: str) -> str:
    """A name made of any text, such as a model's, which is one component of a path.

    >>> folder_name("org/model 1.3B"), folder_name("../..")
    ('org-model-1.3B', 'unnamed')
    """
    letters = (letter if letter.isalnum() or letter in ".-_" else "-" for letter in text)
    return "".join(letters).strip(".-")[: _LONGEST // 2] or "unnamed"
