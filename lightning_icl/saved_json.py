"""JSON files of a run, read back: whole and of the shape that `schemas/` describes, or refused by name and place.

Nobody knows what became of a file since it was saved: cut by a full disk, edited by hand, written by another version.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from lightning_icl.errors import OutputError

_SCHEMAS = Path(__file__).with_name("schemas")
# Control characters but for tab and line feed, and halves of surrogate pairs: no file, terminal or font can show them.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_ADVICE = "The file is damaged or was edited: make it again, or take it away."
_WORDS = {"object": "an object", "array": "a list", "string": "text", "integer": "a whole number", "number": "a number"}


def read_json(path: Path, schema: str) -> dict[str, Any]:
    """The object that a file holds; characters that nothing can show are replaced.

    Args:
        path: the file.
        schema: name of what it must fit, a file in `schemas/` without its ending.

    Raises:
        OutputError: it cannot be read, is no JSON, or does not fit: naming the file and the place in it.
    """
    return _content(_text(path), schema, repr(str(path)))


def read_json_lines(path: Path, schema: str) -> list[dict[str, Any]]:
    """The objects that a file holds, one a line.

    Raises:
        OutputError: as `read_json`, naming the line too.
    """
    lines = enumerate(_text(path).split("\n"), 1)
    return [_content(line, schema, f"{str(path)!r}, line {number}") for number, line in lines if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise OutputError(f"{str(path)!r} cannot be read: {error}.") from error


def _content(text: str, schema: str, where: str) -> dict[str, Any]:
    from fastjsonschema import JsonSchemaValueException

    try:
        # NaN is no JSON, although Python reads it.
        content = json.loads(text, parse_constant=_refuse)
        _check_version(content, schema, where)  # first: another version has other keys, which is no damage
        return dict(_shown(_validator(schema)(content)))
    except JsonSchemaValueException as fault:
        raise OutputError(f"{where}: {_complaint(fault)}. {_ADVICE}") from fault
    except OutputError:  # which is a ValueError too
        raise
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{where} cannot be read as JSON: {_cut(str(error), 150)}. {_ADVICE}") from error


def _check_version(content: Any, schema: str, where: str) -> None:
    """Tell a file of another version from a damaged one.

    Raises:
        OutputError: the file is of a version that this one does not read.
    """
    read = _schema(schema)["properties"].get("schema", {}).get("const")
    version = content.get("schema") if isinstance(content, dict) else None
    if read is not None and isinstance(version, int) and version != read:
        raise OutputError(f"{where} has schema {version}; this version of lightning-icl reads schema {read}.")


@cache
def _schema(name: str) -> dict[str, Any]:
    return dict(json.loads((_SCHEMAS / f"{name}.json").read_text(encoding="utf-8")))


@cache
def _validator(schema: str) -> Callable[[Any], Any]:
    import fastjsonschema

    # Compiled, since a run's curves and maps are tens of thousands of numbers.
    validate: Callable[[Any], Any] = fastjsonschema.compile(_schema(schema), use_default=False)
    return validate


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _complaint(fault: Any) -> str:
    """What stands where, and what may stand there."""
    place = _cut(fault.name.removeprefix("data").removeprefix(".") or "the content", 100)
    if fault.rule == "required":
        missing = next(name for name in fault.rule_definition if name not in fault.value)
        return f"{missing!r} is missing in {place}"
    value = _cut(json.dumps(fault.value), 60)
    if fault.rule == "type":
        kinds = [fault.rule_definition] if isinstance(fault.rule_definition, str) else fault.rule_definition
        return f"{place} is {value}, and must be {' or '.join(_WORDS.get(kind, kind) for kind in kinds)}"
    return f"{place} is {value}, which does not fit: {fault.rule} {_cut(str(fault.rule_definition), 60)}"


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _shown(value: Any) -> Any:
    """The same with every text such that a terminal, a page and a font can show it."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_shown(key): _shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return value
