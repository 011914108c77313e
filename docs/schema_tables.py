"""A hook of the documentation site: tables of saved files' keys, made from the schemas that ship with the package.

A line `{{ keys: NAME }}` in a page becomes the table of `lightning_icl/schemas/NAME.json`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SCHEMAS = Path(__file__).resolve().parents[1] / "lightning_icl" / "schemas"
_LINE = re.compile(r"^\{\{ keys: (\w+) \}\}$", flags=re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return _LINE.sub(lambda match: keys_table(match[1]), markdown)


def keys_table(name: str) -> str:
    """Markdown: one row for each key, nested ones behind a dot, `[]` for the items of a list."""
    schema = json.loads((_SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    rows = [f"| `{key}` | {kind} | {_escaped(text)} |" for key, kind, text in keys(schema, schema)]
    return "\n".join(["| key | type | |", "|---|---|---|", *rows])


def _escaped(text: str) -> str:
    return re.sub(r"([|\[\]<>*])", r"\\\1", text)


def keys(part: dict[str, Any], schema: dict[str, Any], before: str = "") -> Iterator[tuple[str, str, str]]:
    """Path, type and description of every key."""
    for name, own in part.get("properties", {}).items():
        item = _resolved(own, schema)
        yield f"{before}{name}", _kind(item), own.get("description", item.get("description", ""))
        yield from keys(item, schema, f"{before}{name}.")
        items = _resolved(item.get("items", {}), schema)
        yield from keys(items, schema, f"{before}{name}[].")
    others = part.get("additionalProperties")
    if isinstance(others, dict):
        item = _resolved(others, schema)
        yield f"{before}…", _kind(item), others.get("description", item.get("description", ""))
        yield from keys(item, schema, f"{before}….")


def _resolved(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = part.get("$ref")
    if reference is None:
        return part
    found: Any = schema
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def _kind(part: dict[str, Any]) -> str:
    if "const" in part:
        return f"`{part['const']}`"
    kinds = part.get("type", "any")
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
