"""What a classification task is: a prompt with named fields, answer words, and where the rows are.

A template is filled by field name only. Text that comes from a data set is never interpreted: braces, attribute
access and format specifications in it stay text.
"""

import re
from collections.abc import Mapping
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
        return re.sub(r"\s*[\r\n]+\s*", " ", str(row[name]))

    return _FIELD.sub(text_of, template)


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
    """A classification task. An example is `prompt + " " + answer word`; a query is the prompt alone."""

    name: str
    """Name on the command line and in results."""
    templates: Mapping[str, str]
    """Prompt templates by variant; the first one is the default."""
    answers: tuple[str, ...]
    """Answer words (verbalizers) by label number."""
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
