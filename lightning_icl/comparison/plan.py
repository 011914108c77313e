"""Everything that can be known, and every mistake that can be found, before any weights are loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_icl.comparison.controls.catalogue import OTHER_TASK, Control, choose, own_rates
from lightning_icl.comparison.settings import CompareSettings, RunSettings
from lightning_icl.comparison.trainer import DTYPES
from lightning_icl.data.module import ICLDataModule, load_data
from lightning_icl.data.queries import Query
from lightning_icl.errors import TaskError, UserError
from lightning_icl.models.architecture import context_length
from lightning_icl.models.fitting import check_vocabulary
from lightning_icl.models.rotary import check_lengths
from lightning_icl.models.spreading import check_spreadable
from lightning_icl.models.subject import Subject, read_subject
from lightning_icl.published import published_size
from lightning_icl.records import Demonstrations
from lightning_icl.saving.paths import output_path
from lightning_icl.tasks.catalogue import neighbour, resolve_tasks
from lightning_icl.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from lightning_icl.probing.finetuning_run import Finetuned

HELD_OUT, FEWEST_HELD_OUT = 64, 16
"""Training rows on which `--lr auto` chooses, at most and at least: half as many as there are queries, since every
rate is judged on all of them."""


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """One task, read, checked and encoded."""

    name: str
    """As the user named it: a known name, or the path of a task file."""
    task: Task
    data: ICLDataModule
    learning_rate: float
    neighbour: Demonstrations | None = None
    """Demonstrations of the next task of its group, where a control asks for them and its rows can be read."""
    held_out: tuple[Query, ...] = ()
    """Training rows on which `--lr auto` chooses; none where another rate was asked for."""
    choice: Mapping[str, object] | None = None
    """What `--lr auto` tried and chose, once it has."""
    finetuned: "Finetuned | None" = None
    """What was learnt at the chosen rate, once it has been chosen."""
    choice_seconds: float = 0.0
    """What choosing took."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole comparison, ready for the weights."""

    settings: CompareSettings
    subject: Subject
    tasks: tuple[PlannedTask, ...]
    out: Path
    controls: tuple[Control, ...] = ()
    control_rates: Mapping[str, float] = field(default_factory=dict)
    """By control, the learning rate that it was given."""

    def load(self) -> "PreTrainedModel":
        """The model, ready to be probed.

        Raises:
            UserError: its weights cannot be used.
        """
        return self.subject.load(DTYPES[self.settings.trainer_precision], device_map=self.settings.device_map)

    def fingerprints(self, planned: PlannedTask) -> dict[str, str]:
        """What the figures of a task depend on beside its settings: rows, task, tokens and weights, as they are now."""
        fingerprints = {**planned.data.fingerprints, "weights": self.subject.weights}
        if _needs_neighbour(self.settings):
            fingerprints["neighbour"] = "" if planned.neighbour is None else planned.neighbour.hash
        return fingerprints


def make_plan(settings: CompareSettings) -> Plan:
    """Read configuration, tokenizer and rows, and check them against each other.

    Raises:
        UserError: anything the user gave that cannot be used.
    """
    # The cheapest checks first: flags, then names, then rows, and the model's files last.
    output_folder(settings)
    own_rates(settings.control_lr, choose(settings.controls))
    tasks = resolve_tasks(settings.task)
    for task in tasks.values():
        task.template(settings.template)
    return plan_of(settings, tasks, read_subject(settings))


def plan_of(settings: CompareSettings, tasks: Mapping[str, Task], subject: Subject) -> Plan:
    """The plan for tasks and a model that are there already.

    Args:
        settings: of the run; their `task` and `model` are not asked.
        tasks: by the name that the user gave them.
        subject: the model, without its weights or with them.

    Raises:
        UserError: anything that does not fit together.
    """
    if settings.device_map is not None:
        check_spreadable(subject.source)
    controls = choose(settings.controls)
    return Plan(
        settings=settings,
        subject=subject,
        tasks=tuple(_plan_task(settings, name, task, subject) for name, task in tasks.items()),
        out=output_folder(settings),
        controls=controls,
        control_rates=own_rates(settings.control_lr, controls),
    )


def _plan_task(settings: CompareSettings, name: str, task: Task, subject: Subject) -> PlannedTask:
    config, tokenizer = subject.config, subject.tokenizer
    length, seed = context_length(config), seed_for(settings, task)
    data = load_data(settings, task, tokenizer, length, shots=settings.shots, seed=seed)
    # The largest token of rows and prompt: a tokenizer of another model shows here.
    check_vocabulary(subject.source.name, config, tokenizer, data.token_ids)
    check_lengths(config, data.prefix_lengths, data.longest_query)
    return PlannedTask(
        name=name,
        task=task,
        data=data,
        learning_rate=learning_rate_for(settings, task),
        held_out=_held_out(settings, data) if chooses_rate(settings, task) else (),
        neighbour=_neighbour(settings, task, data, config) if _needs_neighbour(settings) else None,
    )


def _held_out(settings: CompareSettings, data: ICLDataModule) -> tuple[Query, ...]:
    """Training rows to choose a rate on; none where too few are left and nobody asked for a choice.

    Raises:
        TaskError: too few are left for a choice that was asked for.
    """
    count = min(HELD_OUT, max(FEWEST_HELD_OUT, len(data.queries) // 2))
    queries = data.held_out(count, [data.demonstrations])
    if len(queries) < FEWEST_HELD_OUT:
        # Nobody asked for a choice: a guess is then better than an error.
        if settings.lr is None:
            return ()
        raise TaskError(
            f"--lr auto: task {data.task.name!r} has {len(queries)} training rows that are in no demonstration and "
            f"repeat no query; {FEWEST_HELD_OUT} are needed to choose a rate on. Give a number."
        )
    return tuple(queries)


def _needs_neighbour(settings: CompareSettings) -> bool:
    return any(control.name == OTHER_TASK for control in choose(settings.controls))


def _neighbour(
    settings: CompareSettings, task: Task, data: ICLDataModule, config: "PretrainedConfig"
) -> Demonstrations | None:
    """As many demonstrations of the neighbouring task, where there is one whose rows can be read."""
    other = neighbour(task.name)
    if other is None:
        return None
    main = data.demonstrations
    # Its queries are never looked at, and the template variant was chosen for the main task.
    settings = replace(settings, limit=1, template=None)
    try:
        return load_data(
            settings, other, data.tokenizer, context_length(config), shots=len(main), seed=main.seed
        ).demonstrations
    except UserError:  # the control is then left out with its reason
        return None


def chooses_rate(settings: CompareSettings, task: Task) -> bool:
    """Whether a rate is to be chosen: where that is asked for, and where none is known for this model and task."""
    return settings.lr == "auto" or (settings.lr is None and _known_rate(settings, task) is None)


def _known_rate(settings: CompareSettings, task: Task) -> float | None:
    """The paper's rate for its tasks and models, or the one that whoever made the task gave for this model or any."""
    # `published` means the paper's own models; without it a rate for this model or any will do.
    size = published_size(settings.model) or ""
    names = (size,) if settings.lr == "published" else (size, settings.model, "any")
    return next((task.learning_rates[name] for name in names if name in task.learning_rates), None)


def learning_rate_for(settings: CompareSettings, task: Task) -> float:
    """The rate asked for, else one known for this model and task, else a guess, which a choice will replace.

    Raises:
        TaskError: the paper's rate is asked for where the paper has none.
    """
    if isinstance(settings.lr, float | int):
        return float(settings.lr)
    rate = _known_rate(settings, task)
    if rate is not None:
        return rate
    if settings.lr == "published":
        raise TaskError(
            f"--lr published: the paper gives no rate for task {task.name!r} and model {settings.model!r}. "
            "Give a number."
        )
    return task.learning_rates["default"]


def seed_for(settings: CompareSettings, task: Task) -> int:
    """The seed asked for, or the paper's for its tasks and models.

    Raises:
        TaskError: the paper's seed is asked for where the paper has none.
    """
    if isinstance(settings.seed, int):
        return settings.seed
    size = published_size(settings.model)
    if size is None or size not in task.seeds:
        raise TaskError(
            f"--seed published: the paper gives no seed for task {task.name!r} and model {settings.model!r}. "
            "Give a number."
        )
    return task.seeds[size]


def output_folder(settings: CompareSettings) -> Path:
    """The folder asked for, else `runs`, where the run's own is made when it begins.

    Raises:
        OutputError: what was asked for is no path.
    """
    return Path("runs") if settings.out is None else output_path(settings.out)


def resolved_command_settings(
    settings: RunSettings, plan: Plan, planned: PlannedTask, *, without: Sequence[str] = ("overwrite",)
) -> dict[str, object]:
    """`resolved_settings` for a command with settings of its own, which keep their values; some are left out."""
    everything = {**asdict(settings), **resolved_settings(plan, planned)}
    return {own.name: everything[own.name] for own in fields(settings) if own.name not in without}


def resolved_settings(plan: Plan, planned: PlannedTask) -> dict[str, object]:
    """The settings of one task as they were carried out: `--config` of these runs it again."""
    # What changes no figure is left out.
    settings = {key: value for key, value in asdict(plan.settings).items() if key not in ("overwrite", "show_prompt")}
    return {
        **settings,
        "task": planned.name,
        # What `auto` stood for, so that the file gives the same prompt with another tokenizer version.
        "separator": "auto" if plan.settings.chat else planned.data.layout.separator,
        "seed": planned.data.demonstrations.seed,
        # The word and not the number: run again, it is chosen again and must come to the same.
        "lr": "auto" if planned.held_out else planned.learning_rate,
        "out": str(plan.out),
    }
