"""What a task is: a prompt with named fields, the answers to choose from, and where the rows are.

A template is filled by field name only. Text that comes from a data set is never interpreted: braces, attribute
access and format specifications in it stay text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning_icl.errors import TaskError, did_you_mean

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def template_fields(template: str) -> tuple[str, ...]:
    """Names of the fields in a template, in order of first use.

    >>> template_fields("{premise} Question: {hypothesis}. Answer:")
    ('premise', 'hypothesis')
    """
    return tuple(dict.fromkeys(_FIELD.findall(template)))


def fill_template(template: str, row: Mapping[str, object]) -> str:
    """The template with each `{field}` replaced by the row's text; line breaks inside a field become one space.

    >>> fill_template("Sentence: {text} Label:", {"text": "a {text} with {0.__class__}"})
    'Sentence: a {text} with {0.__class__} Label:'

    Raises:
        TaskError: the row lacks a field of the template.
    """

    def text_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in row or row[name] is None:
            raise TaskError(f"The template needs the field {name!r}, which the row lacks. {did_you_mean(name, row)}")
        return one_line(row[name])

    return _FIELD.sub(text_of, template)


def one_line(value: object) -> str:
    """A value's text, each line break in it and the spaces around it made one space."""
    return re.sub(r"\s*[\r\n]+\s*", " ", str(value))


def label_number(value: object, names: Sequence[str], count: int) -> int:
    """The number that a row's label stands for.

    Args:
        value: the label as the row gives it.
        names: what labels are called, by number; none where rows give numbers.
        count: how many there are to choose from.

    >>> label_number("B", ["A", "B", "C"], 3), label_number("2", [], 3)
    (1, 2)

    Raises:
        TaskError: it is none of them.
    """
    if isinstance(value, str) and value in names:
        return list(names).index(value)
    if isinstance(value, str) and value.strip().lstrip("-").isdigit() and not names:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        wanted = f"one of {', '.join(names)}" if names else "a label number"
        hint = "" if names else " For labels as text, give their names in order as `label_names` in a task file."
        raise TaskError(f"the label {value!r} must be {wanted}.{hint}")
    if not 0 <= value < count:
        raise TaskError(f"the label {value} is out of range: labels go from 0 to {count - 1}.")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Rows of a data set on the Hugging Face hub."""

    path: str
    """Repository of the data set, such as `glue`."""
    config: str | None = None
    """Configuration inside it, such as `sst2`."""
    train_split: str = "train"
    """Split that demonstrations come from."""
    query_split: str = "validation"
    """Split that queries come from."""
    label_field: str | None = None
    """Field that holds the label on the hub, where it is not the task's."""
    revision: str | None = None
    """Branch of the repository; `refs/convert/parquet` where its default branch holds a loading script."""


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Rows in two files of a user."""

    train: Path
    """File that demonstrations come from."""
    validation: Path
    """File that queries come from."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification task. An example is `prompt + " " + answer word`; a query is the prompt alone.

    The rest of the program asks a task for the `prompt`, `options` and `gold` of a row only, so another form of task
    overrides these (`tasks.choice.MultipleChoice`).
    """

    name: str
    """Name on the command line and in results."""
    templates: Mapping[str, str]
    """Prompt templates by variant; the first one is the default."""
    answers: tuple[str, ...]
    """Answer words (verbalizers) by label number, the same for every row."""
    source: HubSource | FileSource | None = None
    """Where the rows are; None for generated tasks and for rows from a local folder only."""
    label_field: str = "label"
    """Field that holds the label number, or one of `label_names`."""
    label_names: tuple[str, ...] = ()
    """Names of the labels, by number, where rows give the label as text."""
    learning_rates: Mapping[str, float] = field(default_factory=lambda: {"default": 1e-3})
    """Fine-tuning rate by model size as published (`1.3B`, `2.7B`), and under `default` for any other model."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    """Seed of the published demonstrations by model size."""
    reference: str = ""
    """Publication the data comes from."""

    @property
    def choices(self) -> str:
        """What there is to choose from, in words for a listing."""
        return ", ".join(self.answers)

    def template(self, variant: str | None = None) -> str:
        """The prompt template of a variant (the default one for None).

        Raises:
            TaskError: the task has no such variant.
        """
        if variant is None:
            return next(iter(self.templates.values()))
        if variant not in self.templates:
            raise TaskError(f"Task {self.name!r} has no template {variant!r}. {did_you_mean(variant, self.templates)}")
        return self.templates[variant]

    def prompt(self, row: Mapping[str, object], variant: str | None = None) -> str:
        """The query prompt of a row."""
        return fill_template(self.template(variant), row)

    def options(self, row: Mapping[str, object]) -> tuple[str, ...]:
        """The answers that a row's query chooses from: the answer words.

        Raises:
            TaskError: a row that brings its own has none that can be used; the message does not name the row.
        """
        return self.answers

    def gold(self, row: Mapping[str, object], label_field: str) -> int:
        """Number of the right one among a row's options.

        Args:
            row: the row.
            label_field: where its label is.

        Raises:
            TaskError: the label names none of them; the message does not name the row.
        """
        return label_number(row[label_field], self.label_names, len(self.answers))
