"""A user's own task, from a YAML file. Every row has the same answers:

template: "Ticket: {text} Team:"        # or templates: {short: ..., long: ...}; the first is the default
answers: [billing, support]              # answer words, by label number
label_field: team                        # default: label
label_names: [bill, supp]                # what rows call the labels; without it rows give the number
learning_rate: 0.001
rows:                                    # without it: --data FOLDER
  train: tickets/train.jsonl             # files, relative to this one
  validation: tickets/validation.jsonl
  # or a data set of the hub: {hub: glue, config: sst2, train_split: train, query_split: validation}

or, with `options` in place of `answers`, its own (multiple choice):

template: "Question: {question} Answer:"
options: choices.text                    # a field that holds a list (b inside a is a.b); or [sol1, sol2], a field each
option_labels: choices.label             # where the label is one of these; without it the option's number, from 0
label_field: answerKey
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_icl.errors import TaskError, did_you_mean, shown
from lightning_icl.plain_yaml import read_yaml
from lightning_icl.tasks._choice import MultipleChoice
from lightning_icl.tasks.task import FileSource, HubSource, Task

_KEYS = (
    "name",
    "template",
    "templates",
    "answers",
    "options",
    "option_labels",
    "label_field",
    "label_names",
    "learning_rate",
    "rows",
    "reference",
)


def read_task(path: Path) -> Task:
    """The task in a YAML file.

    Raises:
        TaskError: the file is missing, is no YAML, or says something that makes no task.
    """
    content = read_yaml(path, "task file", TaskError)
    if not isinstance(content, dict):
        raise TaskError(f"The task file {str(path)!r} must hold keys and values. Known keys: {', '.join(_KEYS)}.")
    for key in content:
        if key not in _KEYS:
            raise TaskError(f"Task file {str(path)!r}: unknown key {key!r}. {did_you_mean(str(key), _KEYS)}")
    rate = content.get("learning_rate", 1e-3)
    # A bool is an int in Python, and `learning_rate: yes` is a bool in YAML.
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
        raise TaskError(f"Task file {str(path)!r}: learning_rate must be a positive number, not {rate!r}.")
    # Exactly one: together they would contradict each other, without either there is nothing to answer.
    if ("answers" in content) == ("options" in content):
        raise TaskError(
            f"Task file {str(path)!r}: give either `answers`, words that every row chooses from, or `options`, the "
            "fields where a row has its own."
        )
    if "option_labels" in content and "options" not in content:
        raise TaskError(f"Task file {str(path)!r}: `option_labels` needs `options`. For `answers` use `label_names`.")
    common: dict[str, Any] = {
        "name": _name(path, content),
        "templates": _templates(path, content),
        "source": _source(path, content.get("rows")),
        "label_field": _text(path, "label_field", content.get("label_field", "label")),
        "label_names": _words(path, content, "label_names", least=0),
        # `any` only where the file gives a rate: a default is no knowledge, and `--lr auto` would be skipped.
        "learning_rates": {"default": float(rate)} | ({"any": float(rate)} if "learning_rate" in content else {}),
        "reference": _text(path, "reference", content.get("reference", ""), least=0),
    }
    form: type[Task] = Task if "answers" in content else MultipleChoice
    particular: dict[str, Any] = (
        {"answers": _words(path, content, "answers", least=2)}
        if form is Task
        else {
            "option_fields": _option_fields(path, content["options"]),
            "option_labels": _text(path, "option_labels", content.get("option_labels", ""), least=0),
        }
    )
    try:
        return form(**common, **particular)
    except TaskError as error:
        # The task does not know its file; the message should.
        raise TaskError(f"Task file {str(path)!r}: {error}") from error


def _name(path: Path, content: Mapping[str, Any]) -> str:
    name = content.get("name", path.stem)
    # A number is a fine name, and YAML reads `name: 7` as one.
    return str(name) if type(name) is int else _text(path, "name", name, least=0)


def _text(path: Path, key: str, value: object, least: int = 1) -> str:
    """A value that must be a text of a length."""
    if not isinstance(value, str) or len(value.strip()) < least:
        raise TaskError(f"Task file {str(path)!r}: `{key}` must be a text, not {shown(value)}. Put it in quotes.")
    return value


def _option_fields(path: Path, value: object) -> tuple[str, ...]:
    fields = [value] if isinstance(value, str) else value
    if not isinstance(fields, list) or not fields or not all(isinstance(name, str) and name for name in fields):
        raise TaskError(
            f"Task file {str(path)!r}: `options` must be a field that holds a list, or a list of fields with one "
            f"option each, not {value!r}."
        )
    if len(set(fields)) < len(fields):
        raise TaskError(f"Task file {str(path)!r}: `options` holds a field twice: {fields}.")
    return tuple(fields)


def _templates(path: Path, content: Mapping[str, Any]) -> dict[str, str]:
    if ("template" in content) == ("templates" in content):
        raise TaskError(f"Task file {str(path)!r}: give either `template` or `templates`.")
    # A single template is the variant `program`, which is the name of the default elsewhere.
    templates = content.get("templates", {"program": content.get("template")})
    if not isinstance(templates, dict) or not templates:
        raise TaskError(f"Task file {str(path)!r}: `templates` must name one or more templates.")
    for name, template in templates.items():
        if not isinstance(template, str):
            raise TaskError(
                f"Task file {str(path)!r}: template {shown(name)} must be a text with at least one {{field}}, "
                f"not {shown(template)}."
            )
    return {str(name): template for name, template in templates.items()}


def _words(path: Path, content: Mapping[str, Any], key: str, least: int) -> tuple[str, ...]:
    # YAML reads a bare yes as true, which the message below explains.
    words = content.get(key, [])
    if not isinstance(words, list) or len(words) < least or not all(isinstance(word, str) and word for word in words):
        raise TaskError(
            f"Task file {str(path)!r}: `{key}` must be a list of {'at least two ' if least else ''}words, by label "
            f"number, not {shown(words)}. Put words such as yes and no in quotes: YAML reads them as true and false."
        )
    return tuple(words)


def _source(path: Path, rows: object) -> HubSource | FileSource | None:
    if rows is None:
        return None
    keys = ("hub", "config", "train_split", "query_split", "revision")
    if isinstance(rows, dict):
        # `null` is how YAML says that a key was left out.
        texts = {key: _text(path, f"rows: {key}", value) for key, value in rows.items() if value is not None}
        # Relative to the task file, so that a folder can be moved as a whole.
        if set(texts) == {"train", "validation"}:
            return FileSource(train=path.parent / texts["train"], validation=path.parent / texts["validation"])
        if "hub" in texts and set(texts) <= set(keys):
            return HubSource(path=texts.pop("hub"), **texts)
    raise TaskError(
        f"Task file {str(path)!r}: `rows` must have the keys train and validation (files), or {', '.join(keys)}."
    )
