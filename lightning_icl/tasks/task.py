"""What a task is: a prompt with named fields, the answers to choose from, and where the rows are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_icl.errors import TaskError, did_you_mean, shown
from lightning_icl.file_names import NAME_RULE, fault_of_name
from lightning_icl.tasks._values import label_number
from lightning_icl.tasks.template import check_template, fill_template


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Rows of a data set on the Hugging Face hub."""

    path: str
    """Repository of the data set, such as `glue`."""
    config: str | None = None
    """Configuration inside it, such as `sst2`; on `refs/convert/parquet` the folder of that name."""
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
class MemorySource:
    """Rows in memory (`tasks.memory` says of which kinds)."""

    train: Any
    """What demonstrations come from."""
    validation: Any
    """What queries come from."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification task. An example is `prompt + " " + answer word`; a query is the prompt alone.

    The rest of the program asks a task for the `prompt`, `options` and `gold` of a row only, so another form of task
    overrides these (`tasks.choice.MultipleChoice`).

    Raises:
        TaskError: templates, answers or label names that prompts cannot be made of.
    """

    name: str
    """Name on the command line and in results."""
    templates: Mapping[str, str]
    """Prompt templates by variant; the first one is the default."""
    answers: tuple[str, ...]
    """Answer words (verbalizers) by label number, the same for every row."""
    source: HubSource | FileSource | MemorySource | None = None
    """Where the rows are; None for generated tasks and for rows from a local folder only."""
    label_field: str = "label"
    """Field that holds the label number, or one of `label_names`."""
    label_names: tuple[str, ...] = ()
    """What rows call the labels, by number; without names rows give the number itself."""
    learning_rates: Mapping[str, float] = field(default_factory=lambda: {"default": 1e-3})
    """Fine-tuning rate by model size as published (`1.3B`, `2.7B`) or by a model's name, `any` for whatever model; and
    under `default` a guess where none is known and none can be chosen."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    """Seed of the published demonstrations by model size."""
    reference: str = ""
    """Publication the data comes from."""

    def __post_init__(self) -> None:
        """Check what can be checked without rows.

        Raises:
            TaskError: the name cannot be that of a folder, or a template or an answer cannot be used.
        """
        # A name becomes a folder, so what no file system takes is refused here and not at the end of a run.
        if fault := fault_of_name(self.name):
            raise TaskError(f"the name {shown(self.name)} becomes a folder, but {fault}. {NAME_RULE}")
        for name, template in self.templates.items():
            try:
                check_template(template)
            except TaskError as error:
                raise TaskError(f"template {shown(name)}: {error}") from error
        for answer in self.answers:
            # Blanks at an end change an answer's tokens, and a line break would look like structure.
            if answer != " ".join(answer.split()):
                raise TaskError(
                    f"the answer {shown(answer)} has a blank at its beginning or end, two in a row, or a line break; "
                    "the blank before an answer is put there by the program."
                )
        for words, kind in ((self.answers, "answers"), (self.label_names, "label names")):
            if len(set(words)) < len(words):
                raise TaskError(f"there is a word twice among the {kind}: {shown(list(words))}.")
        if self.answers and len(self.label_names) not in (0, len(self.answers)):
            raise TaskError(f"there are {len(self.answers)} answers but {len(self.label_names)} label names.")

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
        """The query prompt of a row, without blanks at its end, since an answer brings its own."""
        return fill_template(self.template(variant), row).rstrip()

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
