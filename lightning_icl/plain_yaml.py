"""YAML as plain text, numbers, true and false, lists and keys: what task files and configuration files are made of.

Whoever wrote the file, reading it ends soon and runs nothing: no aliases, no tags, no deep nesting, no large files, no
pipes. Messages name the file and the line, and never repeat what is in it.
"""

import re
import stat
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_icl.errors import UserError

LARGEST = 128 * 1024
"""Bytes of the largest file that is read."""
DEEPEST = 20
"""Levels of lists and keys inside each other."""
_LONGEST_NUMBER = 18

# The types of YAML 1.1 without its dates, merges, and numbers of base 60 and 8 (12:30 and 010 are no 750 and 8); with
# numbers such as 1e-3, which YAML 1.1 reads as text.
_TYPES = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?\d+(_\d+)*", "-+0123456789"),
    ("float", r"[-+]?(\d+(_\d+)*(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+0123456789."),
)


def read_yaml(path: Path, what: str, error: type[UserError] = UserError) -> object:
    """What a YAML file holds: dict, list, str, int, float, bool or None.

    Args:
        path: the file.
        what: what it is called in messages, such as "task file".
        error: kind of the error raised.

    Raises:
        UserError: it is no file that can be read, is too large, is no text, or is no plain YAML.
    """
    try:
        return yaml.load(_text(path), Loader=_PlainLoader)
    except (OSError, ValueError, yaml.YAMLError) as reason:
        raise error(f"The {what} {str(path)!r} cannot be read: {_because(reason)}.") from reason


def to_yaml(content: Mapping[str, object]) -> str:
    """YAML that `read_yaml` reads as the same content."""
    return str(yaml.dump(dict(content), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True))


def _text(path: Path) -> str:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would keep the program waiting
        raise ValueError("it is a folder or a device, not a file")
    # One byte more than allowed, so that a large file is noticed without reading it.
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1024} KiB, more than any such file needs")
    if b"\0" in content:
        raise ValueError("it is not text")
    return content.decode("utf-8-sig")


def _because(reason: Exception) -> str:
    """Why a file was not read, without its words."""
    if isinstance(reason, OSError):
        return reason.strerror or type(reason).__name__
    if isinstance(reason, UnicodeDecodeError):
        return "it is not text in UTF-8"
    if isinstance(reason, yaml.MarkedYAMLError) and reason.problem_mark is not None:
        mark = reason.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: " + ", ".join(
            filter(None, (reason.context, reason.problem))
        )
    if isinstance(reason, yaml.reader.ReaderError):
        return f"character {reason.position + 1} is none that YAML allows"
    return str(reason)


class _PlainLoader(yaml.SafeLoader):
    """Builds plain content only."""

    # Empty at first: resolvers of YAML 1.1 would read dates and numbers of base 60. Ours are added below.
    yaml_implicit_resolvers: Mapping[str, Any] = {}
    _depth = 0

    def compose_node(self, parent: object, index: object) -> Any:
        """One node; what is not plain is refused where it stands, before anything is made of it."""
        # Looked at before it is composed: an alias that expands costs its memory only afterwards.
        event = self.peek_event()
        if event.anchor is not None:  # an alias, or the anchor of one
            raise _refusal(event, "aliases (&name, *name) are not read; write the value out")
        if event.tag is not None:
            raise _refusal(event, "tags (!name) are not read; leave them out")
        if self._depth == DEEPEST:
            raise _refusal(event, f"more than {DEEPEST} levels inside each other")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Keys and values; a key that stands twice is refused, where YAML would take the last in silence."""
        before = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refusal(key, "a key must be one word or text")
            if key.value in before:
                raise _refusal(key, "this key stands here twice")
            before.add(key.value)
        return dict(super().construct_mapping(node, deep=deep))

    def construct_scalar(self, node: Any) -> Any:
        """One value; half a character and the character 0 are no text."""
        value = super().construct_scalar(node)
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _refusal(node, "an escape that stands for no character")
        return value

    def construct_number(self, node: Any) -> int | float:
        """A number that a setting may have."""
        text = self.construct_scalar(node).replace("_", "")
        if node.tag.endswith("float"):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        # Python would take seconds for a number of a million digits.
        if len(text.lstrip("+-")) > _LONGEST_NUMBER:
            raise _refusal(node, f"a number of more than {_LONGEST_NUMBER} digits")
        return int(text)


class _PlainDumper(yaml.SafeDumper):
    """Quotes what `_PlainLoader` would not read as text."""

    yaml_implicit_resolvers: Mapping[str, Any] = {}

    def ignore_aliases(self, data: object) -> bool:
        """Write every value out."""
        return True

    def represent_str(self, data: str) -> Any:
        """Text; characters that cannot be printed only survive as escapes."""
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


def _refusal(where: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


for _name, _pattern, _first in _TYPES:
    for _class in (_PlainLoader, _PlainDumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$", re.ASCII), _first)
for _name in ("int", "float"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_name}", _PlainLoader.construct_number)
_PlainDumper.add_representer(str, _PlainDumper.represent_str)
