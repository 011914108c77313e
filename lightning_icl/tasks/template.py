"""Prompt templates: text with `{field}` where a row's value goes; `{{` and `}}` are braces as text.

A template is filled by field name only. Text that comes from a data set is never interpreted: braces, attribute
access and format specifications in it stay text.
"""

import re
from collections.abc import Iterator, Mapping

from lightning_icl.errors import TaskError, did_you_mean, shown
from lightning_icl.tasks._values import text_of

# Doubled braces first, since a single pair inside them would match too.
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def template_fields(template: str) -> Mapping[str, int]:
    """Fields of a template in order of first use, each with the character it begins at, counted from 1.

    Whatever stands between braces is a field's name, so that none can be left in the prompt unfilled.

    >>> template_fields("{premise} Question: {review-text}. {{not a field}} Answer:")
    {'premise': 1, 'review-text': 21}

    Raises:
        TaskError: a brace without its partner, or braces with nothing between them.
    """
    fields: dict[str, int] = {}
    for match in _pieces(template):
        if match[1] is not None:
            # The first use: that is the place to name in a message.
            fields.setdefault(match[1], match.start() + 1)
    return fields


def check_template(template: str) -> None:
    """Find what would make prompts other than their author meant.

    Raises:
        TaskError: no field, a brace without its partner, or a blank at the end.
    """
    if not template_fields(template):
        raise TaskError(f"it must be a text with at least one {{field}}, not {shown(template)}.")
    if template != template.rstrip():
        raise TaskError(
            "it ends in a blank or a line break; the answer brings its own blank, so there would be two. Leave it out "
            "(in YAML, `|-` drops the last line break of a block, `|` keeps it)."
        )


def fill_template(template: str, row: Mapping[str, object]) -> str:
    """The template with each `{field}` replaced by the row's text; line breaks inside a field become one space.

    >>> fill_template("Sentence: {text} {{x}} Label:", {"text": "a {text} with {0.__class__}"})
    'Sentence: a {text} with {0.__class__} {x} Label:'

    Raises:
        TaskError: the row lacks a field of the template, or its value is no text.
    """
    parts, end = [], 0
    for match in _pieces(template):
        parts.append(template[end : match.start()])
        # A doubled brace is one brace in the prompt.
        parts.append(match[0][0] if match[1] is None else field_text(row, match[1]))
        end = match.end()
    return "".join(parts) + template[end:]


def field_text(row: Mapping[str, object], name: str) -> str:
    """The text of a row's field, on one line.

    Raises:
        TaskError: the row lacks it, it is empty, or no text.
    """
    if name not in row:
        raise TaskError(f"the row lacks the field {shown(name)}. {did_you_mean(name, map(str, row))}")
    try:
        return text_of(row[name])
    except TaskError as error:
        raise TaskError(f"field {shown(name)}: {error}") from error


def _pieces(template: str) -> Iterator[re.Match[str]]:
    """Fields and doubled braces, from left to right."""
    for match in _PIECE.finditer(template):
        if match[0] in ("{", "}"):
            raise TaskError(
                f"{match[0]!r} at character {match.start() + 1} has no partner. Write {2 * match[0]} for a brace that "
                "is text."
            )
        if match[1] is not None and not match[1].strip():
            raise TaskError(
                f"the braces at character {match.start() + 1} name no field. Write {{{{}}}} for braces that are text."
            )
        yield match
