"""Rows of a task, from a folder, a user's files, the hub or the generators, checked before any model is loaded.

The fixed shuffles are those of the definitions, section 1: `datasets.Dataset.shuffle`, so that a published seed picks
the published demonstrations.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_icl.errors import TaskError, did_you_mean, shown
from lightning_icl.tasks._files import read_rows, split_file
from lightning_icl.tasks._hub import hub_rows
from lightning_icl.tasks._values import is_missing
from lightning_icl.tasks.generated import GENERATED, TRAIN_ROWS, VALIDATION_ROWS, generate_rows
from lightning_icl.tasks.memory import memory_rows
from lightning_icl.tasks.task import FileSource, HubSource, MemorySource, Task
from lightning_icl.tasks.template import field_text, template_fields

QUERY_SEED = 1
MOST_QUERIES = 2000


@dataclass(frozen=True, kw_only=True)
class Row:
    """One labelled row."""

    index: int
    """Its number in the data file, from 0."""
    fields: Mapping[str, object]
    """Values by field name."""
    options: tuple[str, ...]
    """The answers to choose from."""
    label: int
    """Number of the right one."""
    place: str
    """File and line, or whatever says where the row is, for messages."""


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """Both splits of a task."""

    train: tuple[Row, ...]
    """Rows that demonstrations come from."""
    queries: tuple[Row, ...]
    """Rows that queries come from."""
    origin: str
    """Where they were read, for the record."""


def load_rows(task: Task, data: Path | None = None, variant: str | None = None) -> TaskRows:
    """Read both splits of a task and check every row against the task and the template.

    Args:
        task: the task.
        data: folder with `<task>/{train,validation}.{jsonl,csv,parquet}`; None for the task's own source.
        variant: of the prompt template; None for the default.

    Raises:
        TaskError: rows cannot be found or read, or do not fit the task.
    """
    # Found before any row is read: a variant that the task lacks.
    fields = template_fields(task.template(variant))
    # Both splits are read whole: the first bad row may be the last one.
    splits = []
    for split in ("train", "validation"):
        origin, raw, label_field = _raw_rows(task, split, data)
        rows = _checked(task, raw, fields, label_field, origin)
        _check_classes(task, rows, origin)
        splits.append((origin, rows))
    (train_origin, train), (query_origin, queries) = splits
    return TaskRows(train=train, queries=queries, origin=f"{train_origin}; {query_origin}")


def _raw_rows(task: Task, split: str, data: Path | None) -> tuple[str, Iterable[tuple[str, Mapping[str, object]]], str]:
    """Where a split is, its rows with their places, and its label field."""
    # A folder of the user's wins over every source of the task.
    if data is not None:
        path = split_file(data, task.name, split)
        return str(path), read_rows(path), task.label_field
    if isinstance(task.source, FileSource):
        path = task.source.train if split == "train" else task.source.validation
        return str(path), read_rows(path), task.label_field
    if isinstance(task.source, MemorySource):
        origin = f"{split} rows in memory"
        return origin, memory_rows(getattr(task.source, split), split), task.label_field
    if isinstance(task.source, HubSource):
        origin, rows = hub_rows(task.source, split, task.name)
        return origin, rows, task.source.label_field or task.label_field
    if task.name in GENERATED:
        count = TRAIN_ROWS if split == "train" else VALIDATION_ROWS
        # mypy does not narrow a plain text to the literal type.
        made = generate_rows(task.name, "train" if split == "train" else "validation", count)
        origin = f"generated {task.name} {split}"
        return origin, [(f"{origin}, row {number}", row) for number, row in enumerate(made)], task.label_field
    raise TaskError(
        f"Task {task.name!r} does not say where its rows are. Pass --data FOLDER, or give `rows` in its file."
    )


def _checked(
    task: Task,
    raw: Iterable[tuple[str, Mapping[str, object]]],
    fields: Mapping[str, int],
    label_field: str,
    origin: str,
) -> tuple[Row, ...]:
    rows = []
    for index, (place, row) in enumerate(raw):
        try:
            # The template's fields only: others may be empty or missing.
            for name, character in fields.items():
                _check_field(row, name, character)
            _check_label(row, label_field)
            options, label = task.options(row), task.gold(row, label_field)
        except TaskError as error:
            raise TaskError(f"{place}: {error}") from error
        rows.append(Row(index=index, fields=row, options=options, label=label, place=place))
    if not rows:
        raise TaskError(f"{origin} of task {task.name!r} is empty: there is nothing to learn from or to ask.")
    return tuple(rows)


def _check_field(row: Mapping[str, object], name: str, character: int) -> None:
    """Check that the template's field at a character can be filled."""
    if name not in row:
        raise TaskError(
            f"the row lacks the field {shown(name)}, which the template has at character {character}. "
            f"{did_you_mean(name, map(str, row))} Braces that are text are doubled: {{{{ and }}}}."
        )
    if is_missing(row[name]):
        raise TaskError(f"the field {shown(name)} is empty: there is no text. Fill it in or leave the row out.")
    field_text(row, name)


def _check_label(row: Mapping[str, object], name: str) -> None:
    if name not in row:
        raise TaskError(
            f"the row lacks the field {shown(name)}, where the task's label is (`label_field`). "
            f"{did_you_mean(name, map(str, row))}"
        )


def _check_classes(task: Task, rows: Sequence[Row], origin: str) -> None:
    # A task with one answer would be answered rightly by every view.
    present = {row.options[row.label] for row in rows}
    if len(present) == 1:
        raise TaskError(
            f"{origin}: all {len(rows)} rows of task {task.name!r} have the answer {present.pop()!r}; two are needed."
        )


def shuffled_train(rows: TaskRows, seed: int) -> list[Row]:
    """Training rows in the order of the seeded shuffle."""
    return [rows.train[number] for number in _shuffle(len(rows.train), seed)]


def query_order(rows: TaskRows, limit: int | None = None) -> list[Row]:
    """Queries in the order of the fixed shuffle: the first `limit`, or the first 2,000."""
    # A fixed seed: the queries must not change with the demonstrations.
    return [rows.queries[number] for number in _shuffle(len(rows.queries), QUERY_SEED)[: limit or MOST_QUERIES]]


def _shuffle(count: int, seed: int) -> list[int]:
    from datasets import Dataset

    # The shuffle of `datasets` and no other: published seeds mean that one.
    return list(Dataset.from_dict({"row": range(count)}).shuffle(seed=seed)["row"])
