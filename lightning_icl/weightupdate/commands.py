"""The command `weight-update`: plan, load, fine-tune, climb the ladder, save, print."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_icl.comparison.controls.catalogue import choose
from lightning_icl.comparison.controls.run import Controlled, contrasts_of
from lightning_icl.comparison.output import Run, claimed
from lightning_icl.comparison.plan import Plan, PlannedTask, make_plan, resolved_command_settings
from lightning_icl.comparison.progress import say
from lightning_icl.comparison.rate import with_chosen_rate
from lightning_icl.comparison.trainer import check_one_process, check_trainer, make_trainer, quiet
from lightning_icl.data.batches import batch_budget
from lightning_icl.data.queries import Query, budget_batches, collate
from lightning_icl.errors import ModelError, TaskError
from lightning_icl.models.architecture import attention_windows, context_length
from lightning_icl.plain_yaml import to_yaml
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.process_watch import guarded
from lightning_icl.report.drawing import pyplot
from lightning_icl.report.ladder import WEIGHT_UPDATE, ladder_grids, read_ladders
from lightning_icl.report.terminal import print_grid
from lightning_icl.results import CONFIG, to_json
from lightning_icl.weightupdate._content import weight_update_content
from lightning_icl.weightupdate._pictures import save_pictures
from lightning_icl.weightupdate._probe import WeightUpdateProbe
from lightning_icl.weightupdate.settings import WeightUpdateSettings

FAST_WEIGHTS = "fast_weights.safetensors"
CONTROLS = choose("labels-flipped,untrained")
"""What the two updates as matrices are held against, beside a Gaussian."""


def weight_update(settings: WeightUpdateSettings) -> Path:
    """Replace demonstrations by updates of each head, rung by rung; save and print.

    Returns:
        The run's folder.

    Raises:
        UserError: anything the user gave that cannot be used, before any weights are loaded.
    """
    # Before anything is computed: a run of minutes should not end in a missing package.
    if settings.export:
        pyplot()
    comparison = settings.comparison()
    check_one_process("weight-update")
    check_trainer(comparison)
    return carry_out(settings, make_plan(comparison))


def carry_out(settings: WeightUpdateSettings, plan: Plan, *, show: bool = True) -> Path:
    """Climb the ladder on a planned comparison, and save.

    Args:
        settings: of the ladder.
        plan: of the comparison.
        show: whether the tables are printed.

    Returns:
        The run's folder.

    Raises:
        UserError: no rows are left, or the model, its weights or the folder cannot be used.
    """
    quiet()
    # Before weights are loaded: too few rows, or a window, would end the run later.
    held_out = {planned.task.name: _held_out(settings, plan, planned) for planned in plan.tasks}
    for planned in plan.tasks:
        _check_windows(plan, planned, held_out[planned.task.name])
    with claimed(plan, WEIGHT_UPDATE, partial(resolved_command_settings, settings)) as run:
        model = plan.load()
        for planned in run.pending:
            planned = with_chosen_rate(plan.settings, planned, model)
            trainer = make_trainer(plan.settings, [KVFinetuning(planned.learning_rate)], title=planned.task.name)
            queries = held_out[planned.task.name]
            budget = batch_budget(settings.batch_tokens, queries, trainer.strategy.root_device)
            probe = WeightUpdateProbe(
                model,
                planned.data.demonstrations,
                # Held-out prompts are batched once and used for every rung.
                [collate(batch) for batch in budget_batches(queries, budget)],
                max(len(query.answers) for query in planned.data.queries),
                settings.scope,
                settings.depth,
            )
            with guarded(trainer):
                # Also where `--lr auto` has learnt it before: the shares of demonstrations need a look at every step.
                trainer.fit(probe, datamodule=planned.data)
            # Controls fine-tune too, so they come before the pass that compares.
            controlled = contrasts_of(plan.settings, planned, probe, CONTROLS)
            probe.also_compare([contrast for contrasts in controlled.contrasts.values() for contrast in contrasts])
            with guarded(trainer):
                trainer.validate(probe, datamodule=planned.data, verbose=False)
            _save(settings, run, planned, probe, queries, controlled, show)
        if show:
            say(f"\nThe figures of every rung are in {run.plan.out}.")
    return run.plan.out


def _held_out(settings: WeightUpdateSettings, plan: Plan, planned: PlannedTask) -> list[Query]:
    """Training rows whose prompts fit behind the demonstrations.

    Raises:
        TaskError: there are none.
    """
    chosen, data = planned.data.demonstrations, planned.data
    positions, prefix = context_length(plan.subject.config), len(chosen.prefix_token_ids)
    rows = data.held_out(settings.held_out, [chosen])
    # A held-out prompt must fit behind the demonstrations, as queries do.
    held_out = [query for query in rows if positions is None or prefix + query.reach <= positions]
    if not held_out:
        raise TaskError(
            f"{planned.task.name}: no training row is left beside the {len(chosen)} demonstrations to build the update "
            "about. Use fewer --shots, or more training rows."
        )
    return held_out


def _check_windows(plan: Plan, planned: PlannedTask, held_out: Sequence[Query]) -> None:
    """Refuse a model whose sliding window cuts the demonstrations.

    Raises:
        ModelError: with the window and the tokens of a prompt.
    """
    prefix = len(planned.data.demonstrations.prefix_token_ids)
    reach = prefix + max(len(query) for query in (*planned.data.queries, *held_out))
    # Layers without a window see everything.
    shortest = min((window for window in attention_windows(plan.subject.config) if window is not None), default=reach)
    if shortest < reach:
        raise ModelError(
            f"{planned.task.name}: layers of this model see the last {shortest} tokens only, and prompts have up to "
            f"{reach}, so that each query meets other demonstration tokens: they make no one update. Use fewer "
            "--shots, or a model without a sliding window."
        )


@rank_zero_only
def _save(
    settings: WeightUpdateSettings,
    run: Run,
    planned: PlannedTask,
    probe: WeightUpdateProbe,
    held_out: Sequence[Query],
    controlled: Controlled,
    show: bool,
) -> None:
    """Write one task's folder, whole or not at all, and print its tables if asked."""
    content = weight_update_content(run.plan, planned, probe, held_out, controlled.impossible)
    with run.writing(planned) as part:
        (part / WEIGHT_UPDATE).write_text(to_json(content), encoding="utf-8")
        (part / CONFIG).write_text(to_yaml(resolved_command_settings(settings, run.plan, planned)), encoding="utf-8")
        if settings.fast_weights is not None:
            probe.fast_weights(settings.fast_weights).save(part / FAST_WEIGHTS)
        pictures = save_pictures(content, part) if settings.export else []
    for ladder in read_ladders(run.plan.out / planned.task.name) if show else ():
        for grid in ladder_grids(ladder):
            print_grid(grid)
    for path in pictures:
        say(f"wrote {run.plan.out / planned.task.name / path.name}")
