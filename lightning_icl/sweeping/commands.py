"""The command `sweep`: plan, say what it costs, measure what is not finished, put all in one table."""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_icl.comparison.trainer import DTYPES, check_one_process, check_trainer, make_trainer
from lightning_icl.console import say
from lightning_icl.probing.group_memory import group_bytes, groups_within
from lightning_icl.report.sweep import summarise
from lightning_icl.saving.workspace import Workspace
from lightning_icl.sweeping._claim import claimed
from lightning_icl.sweeping._progress import sweep_bar
from lightning_icl.sweeping._table import collect, print_summary, write_tables
from lightning_icl.sweeping.cost import Cost, Runs, cost_of, finetunings, forward_rate, grouped
from lightning_icl.sweeping.measure import measure_group
from lightning_icl.sweeping.plan import SweepPlan, TaskSweep, make_sweep_plan
from lightning_icl.sweeping.settings import SweepSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def sweep(settings: SweepSettings) -> Path:
    """Make every run of the plan that is not finished, then the tables.

    Returns:
        The sweep's folder.

    Raises:
        UserError: anything the user gave that cannot be used.
    """
    check_sweep_devices(settings)
    plan = make_sweep_plan(settings)
    if settings.dry_run:
        _make_runs(plan, None)
        return plan.out
    return carry_out(plan)


def check_sweep_devices(settings: SweepSettings) -> None:
    """Find out whether the sweep can have its device, before the plan, which reads every task of every model.

    Raises:
        UserError: it cannot, or torchrun started several processes.
    """
    check_one_process("sweep", "Start one process for each device, each with its --part I/N.")
    check_trainer(settings.compare(settings.models[0]))


def carry_out(plan: SweepPlan, *, show: bool = True) -> Path:
    """Make the runs of a plan that are not finished, then the tables.

    Args:
        plan: of the sweep.
        show: whether the tables are printed.

    Returns:
        The sweep's folder.

    Raises:
        UserError: the weights, or the folder, cannot be used.
    """
    settings = plan.settings
    with claimed(plan) as space:
        # `--collect` makes tables of what is there and runs nothing.
        if not settings.collect:
            _make_runs(plan, space)
        if settings.part is None:
            _tables(plan, space, show)
        else:
            say(f"Part {settings.part} is done. When all parts are, the same command with --collect makes the tables.")
    return plan.out


def _make_runs(plan: SweepPlan, space: Workspace | None) -> None:
    """Say what is to be made, and make it where there is a folder to write into."""
    _describe(plan)
    # Grouped by model, so that each is loaded once.
    for _, tasks in groupby(plan.tasks, key=lambda task: task.model):
        _sweep_model(plan, [task for task in tasks if plan.pending(task)], space)


def _describe(plan: SweepPlan) -> None:
    runs, pending = len(plan.units) * len(plan.settings.rates), sum(len(plan.pending(task)) for task in plan.tasks)
    share = "" if plan.settings.part is None else f" in part {plan.settings.part}"
    say(f"{runs} runs in the plan; {pending} to make{share}.")
    for task in plan.tasks:
        short = {len(data.demonstrations) for unit, data in task.data.items() if len(data.demonstrations) < unit.shots}
        if short:
            say(f"{task.task.name}: as few as {min(short)} demonstrations fit the context.", style="yellow")


def _sweep_model(plan: SweepPlan, tasks: list[TaskSweep], space: Workspace | None) -> None:
    """Load a model once and make its runs; without a folder only say how long that takes."""
    if not tasks:
        return
    settings = plan.settings
    # All tasks of a model share its weights.
    model = tasks[0].subject.load(DTYPES[settings.compare(tasks[0].model).trainer_precision])
    # By identity: a task sweep holds lists and cannot be hashed.
    groups = {id(task): grouped(plan.pending(task), task, model, settings.overlay_memory) for task in tasks}
    cost = sum((cost_of(task, groups[id(task)]) for task in tasks), Cost())
    device = make_trainer(settings.compare(tasks[0].model), []).strategy.root_device
    model.to(device)  # type: ignore[arg-type]
    # Measured here and not guessed: it depends on the model, the device and the batch.
    rate = forward_rate(model, next(iter(tasks[0].data.values())))
    say(
        f"{tasks[0].model}: {cost.runs} runs, passes over queries: {cost.passes}, {cost.steps:,} fine-tuning "
        f"steps ({cost.training_tokens:,} tokens), {cost.observed_tokens:,} tokens observed; about "
        f"{_duration(cost.forward_tokens / rate)} at {rate:,.0f} tokens a second measured here."
    )
    say(_side_by_side(plan, tasks, model, groups))
    # A dry run ends here, with the time it would take.
    if space is None:
        return
    with sweep_bar(cost) as spend:
        for task in tasks:
            for runs in groups[id(task)]:
                measure_group(plan, task, model, runs, spend, space)


def _side_by_side(
    plan: SweepPlan, tasks: list[TaskSweep], model: "PreTrainedModel", groups: Mapping[int, list[Runs]]
) -> str:
    """How many fine-tunings take their steps together, and what memory that needs beside the model."""
    limit = plan.settings.overlay_memory
    together = [
        group
        for task in tasks
        for runs in groups[id(task)]
        for group in groups_within(finetunings(task, runs), model, limit)
    ]
    # The largest group decides the memory.
    count, most = max(((len(group), group_bytes(model, group)) for group in together), default=(0, 0))
    return f"Up to {count} fine-tunings take their steps together, in about {most / 1e9:.1f} GB."


def _tables(plan: SweepPlan, space: Workspace, show: bool) -> None:
    rows = collect(plan)
    summary = summarise(rows)
    with space.adding() as part:
        write_tables(part, rows, summary)
    if show:
        print_summary(rows, summary)
    # Parts of other processes may still be running.
    missing = len(plan.units) * len(plan.settings.rates) - len(rows)
    if missing:
        say(f"{missing} runs of the plan are not finished yet.", style="yellow")
    if show:
        say(f"All runs are in {plan.out / 'sweep.csv'} and sweep.parquet, the summary in summary.csv.")


def _duration(seconds: float) -> str:
    """
    >>> _duration(30), _duration(5400), _duration(200000)
    ('30 s', '1.5 h', '2.3 days')
    """
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
