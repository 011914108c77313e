"""What the calls are given: models and tasks by name or as objects, rows in memory, flags as keyword arguments."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_icl.comparison.settings import RunSettings
from lightning_icl.errors import TaskError, UserError, did_you_mean
from lightning_icl.models.finding import ModelSource
from lightning_icl.models.loading import tokenizer_of
from lightning_icl.models.plain import check_plain
from lightning_icl.models.settings import ModelSettings
from lightning_icl.models.subject import Subject, read_subject
from lightning_icl.setting_values import expected, from_yaml, may_be_none, nearest
from lightning_icl.tasks.catalogue import resolve_tasks
from lightning_icl.tasks.memory import memory_source
from lightning_icl.tasks.task import Task

Rows = str | Path | Mapping[str, Any]
"""A folder as `--data` takes it, or rows in memory by split (`train`, `validation`): lists of dictionaries, data sets
of `datasets`, or frames of pandas."""

Settings = TypeVar("Settings", bound=RunSettings)

# Everything else runs in float32, whatever the model's weights are.
_PRECISIONS = {torch.bfloat16: "bf16-true", torch.float64: "64-true"}
# Arguments of their own, and flags that show something instead of running, or share a run among processes.
_NO_OPTIONS = ("model", "task", "data", "out", "show_prompt", "synthetic", "dry_run", "collect", "part")


@contextmanager
def run_folder(out: str | Path | None) -> Iterator[tuple[Path, Path | None]]:
    """Where a run is kept, and the temporary folder around it where nobody named one, which goes when the run fails."""
    if out is not None:
        yield Path(str(out)), None
        return
    # Beside the run and not the run itself: a run's folder must not exist yet.
    temporary = Path(tempfile.mkdtemp(prefix="lightning-icl-"))
    try:
        yield temporary / "run", temporary
    # Also an interrupt: nobody would find a temporary folder again.
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def settings_from(
    kind: type[Settings],
    call: str,
    options: Mapping[str, Any],
    *,
    model: PreTrainedModel | str,
    task: Task | str,
    data: Rows | None,
    out: Path,
) -> Settings:
    """A command's settings from keyword arguments, checked as on the command line.

    Args:
        kind: of settings.
        call: name of the function that was called.
        options: by name of the setting; several values in a list, tuple or mapping.
        model, task, data: as they were given.
        out: folder of the run.

    Raises:
        UserError: naming the argument and what is allowed.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.name not in _NO_OPTIONS]
    # Read as YAML is, so that an argument has the type of its flag and the same messages.
    read = {}
    for name, value in options.items():
        if name not in names:
            raise UserError(f"{call}() takes no argument {name!r}. {did_you_mean(name, names)}")
        read[name] = from_yaml(hints[name], _as_flag(value))
        # None is a value where the type allows it, and "not given" elsewhere.
        if read[name] is None and not (value is None and may_be_none(hints[name])):
            raise UserError(f"{name} = {value!r}: give {expected(hints[name])}.{nearest(hints[name], value)}")
    if isinstance(model, PreTrainedModel):
        # A model object has its type already; the Trainer must compute in the same.
        read = {"precision": _PRECISIONS.get(model.dtype, "32-true"), **read}
    folder = folder_of(data)
    named = {"model": name_of(model), "task": task.name if isinstance(task, Task) else task, "out": str(out)}
    return kind(**{**read, **named, "data": None if folder is None else str(folder)})


def _as_flag(value: Any) -> Any:
    """Several values as a flag has them, with commas between them; one as it is."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={own}" for name, own in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(map(str, value))
    return value


def subject_of(
    model: PreTrainedModel | str, tokenizer: PreTrainedTokenizerBase | None, settings: ModelSettings
) -> Subject:
    """The model that was given, with its configuration and tokenizer.

    Raises:
        ModelError: it cannot be found, has no tokenizer, or is no plain model.
    """
    if isinstance(model, str):
        return read_subject(settings, model, tokenizer)
    # Wrapped, quantised and adapted models are refused before anything is read.
    check_plain(model)
    source = ModelSource(name=name_of(model), location=name_of(model))
    return Subject(source=source, config=model.config, tokenizer=tokenizer or tokenizer_of(model), model=model)


def name_of(model: object) -> str:
    """What a model is called, in messages and results."""
    return model if isinstance(model, str) else str(getattr(model, "name_or_path", "") or type(model).__name__)


def tasks_of(task: Task | str, data: Rows | None) -> dict[str, Task]:
    """The tasks that were given, by name; rows in memory are those of one.

    Raises:
        TaskError: a task is not known, or rows in memory were given for several.
    """
    if isinstance(data, Mapping):
        only = one_task(task, data)
        return {only.name: only}
    return {task.name: task} if isinstance(task, Task) else resolve_tasks(task)


def one_task(task: Task | str, data: Rows | None) -> Task:
    """The one task that was given, its rows those in memory where there are any.

    Raises:
        TaskError: a name means several.
    """
    tasks = {task.name: task} if isinstance(task, Task) else resolve_tasks(task)
    if len(tasks) > 1:
        raise TaskError(f"{task!r} means {len(tasks)} tasks; one is needed here: one of {', '.join(tasks)}.")
    only = next(iter(tasks.values()))
    # The rows take the place of the task's own source; templates and answers stay.
    return replace(only, source=memory_source(data)) if isinstance(data, Mapping) else only


def folder_of(data: Rows | None) -> Path | None:
    """The folder of rows, where they are not in memory.

    Raises:
        UserError: they are neither.
    """
    if data is None or isinstance(data, Mapping):
        return None
    if not isinstance(data, str | Path):
        raise UserError(
            f"data is a {type(data).__name__}. Give a folder, or rows in memory by split: "
            '{"train": rows, "validation": rows}.'
        )
    return Path(data).expanduser()
