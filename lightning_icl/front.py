"""The front door for programs: a data module and a comparison from a model and a task, each by name or as an object."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_icl.comparison.commands import carry_out
from lightning_icl.comparison.plan import Plan, plan_of
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import check_trainer
from lightning_icl.data.module import ICLDataModule as TaskData
from lightning_icl.data.settings import ProbeToken
from lightning_icl.errors import TaskError, UserError, did_you_mean
from lightning_icl.models.architecture import architecture_of, context_length
from lightning_icl.models.finding import ModelSource, find_source
from lightning_icl.models.fitting import check_vocabulary
from lightning_icl.models.loading import check_weights, load_config, load_tokenizer, tokenizer_of
from lightning_icl.models.plain import check_plain
from lightning_icl.models.settings import ModelSettings
from lightning_icl.run_results import Results
from lightning_icl.setting_values import expected, from_yaml, may_be_none, nearest
from lightning_icl.tasks.catalogue import resolve_tasks
from lightning_icl.tasks.memory import memory_source
from lightning_icl.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Rows = str | Path | Mapping[str, Any]
"""A folder as `--data` takes it, or rows in memory by split (`train`, `validation`): lists of dictionaries, data sets
of `datasets`, or frames of pandas."""

_PRECISIONS = {torch.bfloat16: "bf16-true", torch.float64: "64-true"}
_GIVEN = ("model", "task", "data", "out", "show_prompt")


class ICLDataModule(TaskData):
    """A task as a data module: everything is read, checked and encoded here.

    Args:
        task: the task, or its name, or the path of a task file.
        model: the model, whose positions and tokenizer are taken, or its name; or a tokenizer alone, which needs
            `context_length` with it.
        tokenizer: another tokenizer than the one that the model was loaded with.
        context_length: positions of the model, None for no limit; needed with a tokenizer alone.
        data: a folder, or rows in memory by split; None for the task's own source.
        shots: demonstrations asked for; fewer are used where the context is full.
        seed: seed of the shuffle that picks the demonstrations.
        limit: number of queries; None for the first 2,000 of the fixed shuffle.
        template: variant of the prompt template; None for the task's default.
        separator: what closes a demonstration: `eos`, `newline`, any other text, or `auto` for what fits the tokenizer.
        chat: whether demonstrations are turns of user and assistant, written by the tokenizer's chat template.
        probe_token: which token is probed.
        batch_tokens: tokens in a batch of queries, padding counted; a batch has three queries at least.

    Raises:
        TaskError: the task is not known, or rows, answers, or lengths do not fit.
        ModelError: the model cannot be found, or does not fit its tokenizer.
        UserError: an argument is of another kind.
    """

    def __init__(
        self,
        task: Task | str,
        model: PreTrainedModel | PreTrainedTokenizerBase | str,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        context_length: int | Literal["model"] | None = "model",
        data: Rows | None = None,
        shots: int = 32,
        seed: int = 1,
        limit: int | None = None,
        template: str | None = None,
        separator: str = "auto",
        chat: bool = False,
        probe_token: ProbeToken = "prompt",
        batch_tokens: int = 2048,
    ) -> None:
        config = None
        if isinstance(model, PreTrainedTokenizerBase):
            tokenizer = model
        else:
            _, config, tokenizer = _subject(model, tokenizer, ModelSettings())
        super().__init__(
            _one_task(task, data),
            tokenizer,
            context_length=_positions(config) if context_length == "model" else context_length,
            data=_folder(data),
            shots=shots,
            seed=seed,
            limit=limit,
            template=template,
            separator=separator,
            chat=chat,
            probe_token=probe_token,
            batch_tokens=batch_tokens,
        )
        if config is not None:
            check_vocabulary(_name(model), config, tokenizer, self.token_ids)


def compare(
    model: PreTrainedModel | str,
    task: Task | str = "builtin",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    data: Rows | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Results:
    """Zero-shot, fine-tuned and in-context, side by side: what `lightning-icl compare` does.

    Args:
        model: a causal language model, which is left as it was, or what `--model` takes.
        task: a task, or what `--task` takes.
        tokenizer: another tokenizer than the one that the model was loaded with.
        data: a folder, or rows in memory by split; None for the tasks' own sources.
        out: where to keep the run's files; without it they last as long as the results, which can be saved.
        options: any other flag of `lightning-icl compare`: shots, seed, lr, limit, controls, …

    Raises:
        UserError: anything given that cannot be used, before any weights are loaded.
    """
    passing = Path(tempfile.mkdtemp(prefix="lightning-icl-")) if out is None else None
    try:
        folder = Path(str(out)) if passing is None else passing / "run"
        settings = _settings(options, data=_folder(data), out=folder, model=model)
        check_trainer(settings)
        return Results(carry_out(_plan(settings, model, task, tokenizer, data), show=False), passing)
    except BaseException:
        if passing is not None:
            shutil.rmtree(passing, ignore_errors=True)
        raise


def _positions(config: "PretrainedConfig | None") -> int | None:
    if config is None:
        raise UserError(
            "A tokenizer does not say how many positions its model has: give the model itself, or context_length=…, "
            "None for no limit."
        )
    return context_length(config)


def _name(model: object) -> str:
    """What a model is called, in messages and results."""
    return model if isinstance(model, str) else str(getattr(model, "name_or_path", "") or type(model).__name__)


def _plan(
    settings: CompareSettings,
    model: PreTrainedModel | str,
    task: Task | str,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Rows | None,
) -> Plan:
    tasks = {task.name: task} if isinstance(task, Task) else resolve_tasks(task)
    if isinstance(data, Mapping):
        own = _one_task(task, data)
        tasks = {own.name: own}
    source, config, tokenizer = _subject(model, tokenizer, settings)
    given = model if isinstance(model, PreTrainedModel) else None
    return plan_of(settings, tasks, source, config, tokenizer, given)


def _subject(
    model: PreTrainedModel | str, tokenizer: PreTrainedTokenizerBase | None, settings: ModelSettings
) -> "tuple[ModelSource, PretrainedConfig, PreTrainedTokenizerBase]":
    """Where a model comes from, its configuration and its tokenizer."""
    if isinstance(model, str):
        source = find_source(settings, model)
        config = load_config(source)
        architecture_of(config)
        check_weights(source, config)
        return source, config, tokenizer or load_tokenizer(source)
    check_plain(model)
    return ModelSource(name=_name(model), location=_name(model)), model.config, tokenizer or tokenizer_of(model)


def _settings(
    options: Mapping[str, Any], *, data: Path | None, out: Path, model: PreTrainedModel | str
) -> CompareSettings:
    """The flags of the command line from keyword arguments, checked as there."""
    hints = get_type_hints(CompareSettings)
    names = [field.name for field in fields(CompareSettings) if field.name not in _GIVEN]
    read = {}
    for name, value in options.items():
        if name not in names:
            raise UserError(f"compare() takes no argument {name!r}. {did_you_mean(name, names)}")
        read[name] = from_yaml(hints[name], value)
        if read[name] is None and not (value is None and may_be_none(hints[name])):
            raise UserError(f"{name} = {value!r}: give {expected(hints[name])}.{nearest(hints[name], value)}")
    if isinstance(model, PreTrainedModel):
        read = {"precision": _PRECISIONS.get(model.dtype, "32-true"), **read}
    return CompareSettings(**read, model=_name(model), data=None if data is None else str(data), out=str(out))


def _one_task(task: Task | str, data: Rows | None) -> Task:
    """The task that a name means, its rows those in memory where they were given."""
    tasks = {task.name: task} if isinstance(task, Task) else resolve_tasks(task)
    if len(tasks) > 1:
        raise TaskError(f"{task!r} means {len(tasks)} tasks; one is needed here: one of {', '.join(tasks)}.")
    only = next(iter(tasks.values()))
    return replace(only, source=memory_source(data)) if isinstance(data, Mapping) else only


def _folder(data: Rows | None) -> Path | None:
    """The folder of rows, where they are not in memory."""
    if data is None or isinstance(data, Mapping):
        return None
    if not isinstance(data, str | Path):
        raise UserError(
            f"data is a {type(data).__name__}. Give a folder, or rows in memory by split: "
            '{"train": rows, "validation": rows}.'
        )
    return Path(data).expanduser()
