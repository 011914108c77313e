"""The plan of a sweep: every run, and every mistake that can be found before weights are loaded."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from pathlib import Path

from lightning_icl.data.module import ICLDataModule, load_data
from lightning_icl.data.queries import Query
from lightning_icl.data.settings import DataSettings
from lightning_icl.errors import TaskError, UserError
from lightning_icl.file_names import folder_name
from lightning_icl.models.architecture import context_length
from lightning_icl.models.fitting import check_vocabulary
from lightning_icl.models.rotary import check_lengths
from lightning_icl.models.subject import Subject, read_subject
from lightning_icl.report.sweep import RUN
from lightning_icl.saved_json import read_json
from lightning_icl.saving.paths import output_path
from lightning_icl.sweeping.settings import SweepSettings
from lightning_icl.tasks.catalogue import resolve_tasks
from lightning_icl.tasks.task import Task

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Runs that share a prompt: one model, task, number of shots and seed, at every learning rate."""

    model: str
    task: str
    shots: int
    seed: int
    folder: Path
    """One folder for each learning rate is made in it."""

    @property
    def icl(self) -> str:
        """Name of its in-context condition."""
        return f"icl/{self.shots}/{self.seed}"

    def run_folder(self, rate: float) -> Path:
        """Where the run at a learning rate is kept."""
        # `repr` keeps a rate's digits and needs no rounding.
        return self.folder / f"lr-{rate!r}"


@dataclass(frozen=True, kw_only=True)
class TaskSweep:
    """One model on one task: what one pass over the queries observes."""

    subject: Subject
    task: Task
    data: dict[Unit, ICLDataModule]
    """Its demonstrations for each unit; the queries are the same."""
    held_out: list[Query]
    """Queries to choose seed and rate on; none where the reported ones choose."""
    fingerprints: dict[str, str]
    """SHA-256 of its rows, of the task, and of the model's weights."""

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.subject.source.name


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A whole sweep, ready for the weights."""

    settings: SweepSettings
    out: Path
    tasks: tuple[TaskSweep, ...]

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """All units of the sweep."""
        return tuple(unit for task in self.tasks for unit in task.data)

    @cached_property
    def own_units(self) -> frozenset[Unit]:
        """The units of this process's part."""
        number, parts = self.settings.share
        # Every n-th unit, so that parts get like numbers of tasks and models.
        return frozenset(self.units[number::parts])

    def pending(self, task: TaskSweep) -> list[tuple[Unit, float]]:
        """Runs of a task that this process has to make."""
        mine = [unit for unit in task.data if unit in self.own_units]
        again = self.settings.overwrite
        return [
            (unit, rate) for unit in mine for rate in self.settings.rates if again or not finished(self, unit, rate)
        ]

    @cached_property
    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Those of every model and task, under their names."""
        return {f"{task.model}: {task.task.name}": task.fingerprints for task in self.tasks}

    def fingerprint(self, unit: Unit) -> str:
        """Hash of everything that the numbers of a run depend on, beside its own folder."""
        content = {**fixed(self.settings), "fingerprints": self.fingerprints[f"{unit.model}: {unit.task}"]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def fixed(settings: SweepSettings) -> dict[str, object]:
    """What must not change while a sweep goes on. Seeds and shots decide which rows can be held out."""
    # Every setting about data changes rows or prompts, so all of them are fixed.
    names = ["select", *(field.name for field in fields(DataSettings) if field.name != "task")]
    # `heldout` decides nothing under `--select paper`.
    names += ["heldout"] if settings.select == "heldout" else []
    return {
        **{name: getattr(settings, name) for name in names},
        "precision": settings.compare(settings.models[0]).trainer_precision,
        "seeds": list(settings.seed_numbers),
        "shots": list(settings.shot_numbers),
    }


def finished(plan: SweepPlan, unit: Unit, rate: float) -> bool:
    """Whether a run has figures, or has diverged, under the same settings and from the same rows and weights."""
    path = unit.run_folder(rate) / RUN
    if not path.is_file():
        return False
    content = read_json(path, "sweep_run")
    # Half a run is none: a killed process leaves no `run.json`.
    return content["fingerprint"] == plan.fingerprint(unit) and bool(content["diverged"] or content["queries"])


def make_sweep_plan(settings: SweepSettings) -> SweepPlan:
    """Read configurations, tokenizers and rows of everything in the plan.

    Raises:
        UserError: anything the user gave that cannot be used.
    """
    tasks = resolve_tasks(settings.task).values()
    return sweep_plan_of(settings, tasks, (read_subject(settings, model) for model in settings.models))


def sweep_plan_of(settings: SweepSettings, tasks: Iterable[Task], subjects: Iterable[Subject]) -> SweepPlan:
    """The plan for tasks and models that are there already.

    Args:
        settings: of the sweep; their `task` is not asked.
        tasks: what is asked.
        subjects: the models that the settings name.

    Raises:
        UserError: anything that does not fit together.
    """
    # Listed once: an iterator would be empty for the second model.
    out, tasks = output_path(settings.out), list(tasks)
    for task in tasks:
        task.template(settings.template)
    # Two names may become the same folder name, such as `a/b` and `a-b`.
    folders = {model: out / folder_name(model) for model in settings.models}
    if len(set(folders.values())) < len(folders):
        raise UserError(f"--model {settings.model}: two models would share a folder. Sweep them into different --out.")
    sweeps = [
        sweep for subject in subjects for sweep in _model_sweeps(settings, subject, tasks, folders[subject.source.name])
    ]
    return SweepPlan(settings=settings, out=out, tasks=tuple(sweeps))


def _model_sweeps(
    settings: SweepSettings, subject: Subject, tasks: Iterable[Task], folder: Path
) -> Iterator[TaskSweep]:
    """Every task of one model."""
    config, tokenizer, model = subject.config, subject.tokenizer, subject.source.name
    for task in tasks:
        data = {}
        for shots, seed in product(settings.shot_numbers, settings.seed_numbers):
            place = folder / task.name / f"shots-{shots}" / f"seed-{seed}"
            unit = Unit(model=model, task=task.name, shots=shots, seed=seed, folder=place)
            data[unit] = load_data(settings, task, tokenizer, context_length(config), shots=shots, seed=seed)
            check_vocabulary(model, config, tokenizer, data[unit].token_ids)
            check_lengths(config, data[unit].prefix_lengths, data[unit].longest_query)
        first = next(iter(data.values()))
        yield TaskSweep(
            subject=subject,
            task=task,
            data=data,
            # Every set of demonstrations is in play, so its rows are left out for all seeds and shots.
            held_out=_held_out(settings, task, data.values()),
            fingerprints={**first.fingerprints, "tokens": _all_tokens(data.values()), "weights": subject.weights},
        )


def _all_tokens(data: Iterable[ICLDataModule]) -> str:
    """The fingerprint of what the model reads with every set of demonstrations."""
    return hashlib.sha256("".join(module.tokens_fingerprint for module in data).encode()).hexdigest()


def _held_out(settings: SweepSettings, task: Task, data: Iterable[ICLDataModule]) -> list[Query]:
    if settings.select == "paper":
        return []
    modules = list(data)
    queries = modules[0].held_out(settings.heldout, [module.demonstrations for module in modules])
    if not queries:
        raise TaskError(
            f"No row of the training split of task {task.name!r} is left to choose seed and rate on: all are "
            "demonstrations. Use fewer --seeds or --shots, or --select paper."
        )
    return queries
