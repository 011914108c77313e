"""The commands as calls: a comparison, a sweep, the dual form and weight updates of a model on a task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_icl.comparison.commands import carry_out as carry_out_comparison
from lightning_icl.comparison.plan import Plan, plan_of
from lightning_icl.comparison.settings import CompareSettings, OneDeviceSettings
from lightning_icl.comparison.trainer import check_one_process, check_trainer
from lightning_icl.dualform.commands import carry_out as carry_out_dual_form
from lightning_icl.dualform.settings import DualSettings
from lightning_icl.front._arguments import Rows, run_folder, settings_from, subject_of, tasks_of
from lightning_icl.front.results import DualFormResults, Results, SweepResults, WeightUpdateResults
from lightning_icl.models.scope import Scope
from lightning_icl.sweeping.commands import carry_out as carry_out_sweep
from lightning_icl.sweeping.commands import check_sweep_devices
from lightning_icl.sweeping.plan import sweep_plan_of
from lightning_icl.sweeping.settings import SweepSettings
from lightning_icl.tasks.task import Task
from lightning_icl.weightupdate.commands import carry_out as carry_out_weight_update
from lightning_icl.weightupdate.settings import WeightUpdateSettings

Closer = TypeVar("Closer", bound=OneDeviceSettings)


def compare(
    model: PreTrainedModel | str,
    task: Task | str = "builtin",
    *,
    controls: Sequence[str] | str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    data: Rows | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Results:
    """Zero-shot, fine-tuned and in-context, side by side: what `lightning-icl compare` does.

    Args:
        model: a causal language model, which is left as it was, or what `--model` takes.
        task: a task, or what `--task` takes.
        controls: names of controls to measure beside the comparison, or `all`.
        tokenizer: another tokenizer than the one that the model was loaded with.
        data: a folder, or rows in memory by split; None for the tasks' own sources.
        out: where to keep the run's files; without it they last as long as the results, which can be saved.
        options: any other flag of `lightning-icl compare`: shots, seed, lr, limit, …

    Raises:
        UserError: anything given that cannot be used, before any weights are loaded.
    """
    with run_folder(out) as (folder, temporary):
        arguments = {"controls": controls, **options}
        settings = settings_from(CompareSettings, "compare", arguments, model=model, task=task, data=data, out=folder)
        plan = _plan(settings, model, task, tokenizer, data)
        return Results(carry_out_comparison(plan, show=False), temporary)


def sweep(
    model: PreTrainedModel | str,
    task: Task | str = "builtin",
    *,
    lrs: Sequence[float] | float | str = "paper",
    seeds: Sequence[int] | int | str = (1, 2, 3, 4, 5, 6, 7),
    shots: Sequence[int] | int | str = 32,
    tokenizer: PreTrainedTokenizerBase | None = None,
    data: Rows | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> SweepResults:
    """Many comparisons in one plan, seed and rate chosen on held-out rows: what `lightning-icl sweep` does.

    Args:
        model: a causal language model, which is left as it was, or what `--model` takes.
        task: a task, or what `--task` takes.
        lrs: learning rates of fine-tuning, or `paper` for its 36.
        seeds: seeds of the shuffles that pick the demonstrations.
        shots: numbers of demonstrations.
        tokenizer: another tokenizer than the one that the model was loaded with.
        data: a folder, or rows in memory by split; None for the tasks' own sources.
        out: where to keep the sweep's files; what is finished there is not made again. Without it they last as long as
            the results, which can be saved.
        options: any other flag of `lightning-icl sweep`: select, heldout, limit, overlay_memory, …

    Raises:
        UserError: anything given that cannot be used, before any weights are loaded.
    """
    with run_folder(out) as (folder, temporary):
        arguments = {"lrs": lrs, "seeds": seeds, "shots": shots, **options}
        settings = settings_from(SweepSettings, "sweep", arguments, model=model, task=task, data=data, out=folder)
        check_sweep_devices(settings)
        names = settings.models if isinstance(model, str) else (model,)
        subjects = [subject_of(name, tokenizer, settings) for name in names]
        plan = sweep_plan_of(settings, tasks_of(task, data).values(), subjects)
        return SweepResults(carry_out_sweep(plan, show=False), temporary)


def dual_form(
    model: PreTrainedModel | str,
    task: Task | str = "tiny-sst2",
    *,
    layers: Sequence[int] | int | str = "all",
    tokenizer: PreTrainedTokenizerBase | None = None,
    data: Rows | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> DualFormResults:
    """Demonstrations and fine-tuning as updates of the same matrices: what `lightning-icl dual-form` does.

    Args:
        model: a causal language model, which is left as it was, or what `--model` takes.
        task: a task, or what `--task` takes.
        layers: numbers of layers to look at, or what `--layers` takes.
        tokenizer: another tokenizer than the one that the model was loaded with.
        data: a folder, or rows in memory by split; None for the tasks' own sources.
        out: where to keep the run's files; without it they last as long as the results, which can be saved.
        options: any other flag of `lightning-icl dual-form`: shots, seed, lr, limit, rank, …

    Raises:
        UserError: anything given that cannot be used, before any weights are loaded.
    """
    with run_folder(out) as (folder, temporary):
        # A number alone is a layer, but `--layers` takes text.
        arguments = {"layers": str(layers) if isinstance(layers, int) else layers, **options}
        settings = settings_from(DualSettings, "dual_form", arguments, model=model, task=task, data=data, out=folder)
        check_one_process("dual-form")
        plan = _plan(settings.comparison(), model, task, tokenizer, data)
        return DualFormResults(carry_out_dual_form(settings, plan, show=False), temporary)


def weight_update(
    model: PreTrainedModel | str,
    task: Task | str = "tiny-sst2",
    *,
    scope: Scope = "probe",
    tokenizer: PreTrainedTokenizerBase | None = None,
    data: Rows | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> WeightUpdateResults:
    """Demonstrations replaced by updates of each head, rung by rung: what `lightning-icl weight-update` does.

    Args:
        model: a causal language model, which is left as it was, or what `--model` takes.
        task: a task, or what `--task` takes.
        scope: whose attention to the demonstrations is replaced.
        tokenizer: another tokenizer than the one that the model was loaded with.
        data: a folder, or rows in memory by split; None for the tasks' own sources.
        out: where to keep the run's files; without it they last as long as the results, which can be saved.
        options: any other flag of `lightning-icl weight-update`: shots, seed, lr, limit, depth, fast_weights, …

    Raises:
        UserError: anything given that cannot be used, before any weights are loaded.
    """
    with run_folder(out) as (folder, temporary):
        arguments = {"scope": scope, **options}
        settings = settings_from(
            WeightUpdateSettings, "weight_update", arguments, model=model, task=task, data=data, out=folder
        )
        check_one_process("weight-update")
        plan = _plan(settings.comparison(), model, task, tokenizer, data)
        return WeightUpdateResults(carry_out_weight_update(settings, plan, show=False), temporary)


def _plan(
    settings: CompareSettings,
    model: PreTrainedModel | str,
    task: Task | str,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Rows | None,
) -> Plan:
    # Devices are asked for before any row is read.
    check_trainer(settings)
    return plan_of(settings, tasks_of(task, data), subject_of(model, tokenizer, settings))
