"""The commands `compare`, `fit` and `validate`: plan, load, fine-tune, probe, save, print."""

import gc
import shlex
from pathlib import Path

from transformers import PreTrainedModel

from lightning_icl.comparison._overlays import FINETUNE, read_finetuned
from lightning_icl.comparison.controls.examples import calibrated_readings
from lightning_icl.comparison.controls.run import make_controls
from lightning_icl.comparison.output import Run, claimed, save_finetuning, save_results, show_results
from lightning_icl.comparison.plan import Plan, PlannedTask, make_plan
from lightning_icl.comparison.progress import say
from lightning_icl.comparison.rate import fit_once, with_chosen_rate
from lightning_icl.comparison.settings import CompareSettings, ValidateSettings
from lightning_icl.comparison.trainer import check_trainer, make_trainer
from lightning_icl.data.preview import show_prompt
from lightning_icl.errors import UserError
from lightning_icl.file_names import input_path
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.process_watch import guarded
from lightning_icl.results import RESULTS


def compare(settings: CompareSettings) -> Path | None:
    """Fine-tune, then compare zero-shot, in-context and fine-tuned; save and print.

    Returns:
        The run's folder; None where only the prompt was shown.

    Raises:
        UserError: anything the user gave that cannot be used.
    """
    plan = _plan(settings)
    if plan is None:
        return None
    return carry_out(plan)


def carry_out(plan: Plan, *, show: bool = True) -> Path:
    """Make and save what a plan compares.

    Args:
        plan: of the comparison; its model is loaded unless it has one.
        show: whether the tables are printed.

    Returns:
        The run's folder.

    Raises:
        UserError: the weights, or the folder, cannot be used.
    """
    # Everything that can fail without weights has by now; from here the folder is ours.
    with claimed(plan, RESULTS) as run:
        model = plan.load()
        for planned in run.pending:
            _compare_task(run, planned, model)
            # Trainers and modules refer to each other: without this, a task's weights live on into the next ones.
            gc.collect()
        if show:
            show_results(run)
    return run.plan.out


def _compare_task(run: Run, planned: PlannedTask, model: PreTrainedModel) -> None:
    settings = run.plan.settings
    # The plan has a guess where a rate is to be chosen, since choosing needs the model.
    planned = with_chosen_rate(settings, planned, model)
    data = planned.data
    probe = ICLProbe(model, data.demonstrations, readings=calibrated_readings(data))
    trainer = make_trainer(settings, [KVFinetuning(planned.learning_rate)], title=planned.task.name)
    with guarded(trainer):
        fit_once(trainer, probe, planned)
        # Controls after the main fine-tuning, so that its figures are the same with and without them.
        controlled = make_controls(settings, planned, probe, run.plan.controls, run.plan.control_rates)
        # One pass for everything: conditions that contrasts share are observed once.
        trainer.validate(probe, datamodule=data, verbose=False)
    save_results(run, planned, probe, controlled)


def fit(settings: CompareSettings) -> Path | None:
    """Only the restricted fine-tuning; saves overlays and query vectors for `validate`.

    Returns:
        The run's folder; None where only the prompt was shown.

    Raises:
        UserError: anything the user gave that cannot be used.
    """
    # Before the plan, which may read data for minutes.
    _refuse_controls(settings)
    plan = _plan(settings)
    if plan is None:
        return None
    with claimed(plan, FINETUNE) as run:
        model = plan.load()
        for planned in run.pending:
            planned = with_chosen_rate(settings, planned, model)
            probe = ICLProbe(model, planned.data.demonstrations)
            trainer = make_trainer(settings, [KVFinetuning(planned.learning_rate)], title=planned.task.name)
            with guarded(trainer):
                fit_once(trainer, probe, planned)
            save_finetuning(run, planned, probe)
        # Quoted, so that it can be pasted.
        folder = shlex.quote(str(run.plan.out))
        say(f"Fine-tuned weights are in {run.plan.out}. Probe them with: lightning-icl validate --overlay {folder}")
    return run.plan.out


def validate(settings: ValidateSettings) -> Path | None:
    """Only the probe, with a fine-tuning made by `fit` or without.

    Returns:
        The run's folder; None where only the prompt was shown.

    Raises:
        UserError: anything the user gave that cannot be used, such as an overlay of other demonstrations.
    """
    _refuse_controls(settings)
    plan = _plan(settings)
    if plan is None:
        return None
    overlay = None if settings.overlay is None else input_path(settings.overlay, "--overlay")
    # Before weights are loaded: an overlay that does not fit costs seconds, not minutes.
    tuned = {
        planned.task.name: read_finetuned(overlay / planned.task.name, plan, planned)
        for planned in plan.tasks
        if overlay is not None
    }
    hashes = {name: finetuned.overlay.hash for name, finetuned in tuned.items()}
    with claimed(plan, RESULTS, overlays=hashes) as run:
        model = plan.load()
        for planned in run.pending:
            data, finetuned = planned.data, tuned.get(planned.task.name)
            readings = calibrated_readings(data)
            probe = ICLProbe(model, data.demonstrations, finetuned=finetuned, readings=readings)
            trainer = make_trainer(settings, [], title=planned.task.name)
            with guarded(trainer):
                trainer.validate(probe, datamodule=data, verbose=False)
            save_results(run, planned, probe)
        show_results(run)
    return run.plan.out


def _refuse_controls(settings: CompareSettings) -> None:
    for flag, value in (("--controls", settings.controls), ("--control-lr", settings.control_lr)):
        if value:
            raise UserError(f"{flag} {value}: controls fine-tune and probe; use them with `compare`.")


def _plan(settings: CompareSettings) -> Plan | None:
    """The plan, with every user mistake found; None where the prompt was all that was asked for."""
    # Devices first: it is cheap, and torch is loaded anyway.
    check_trainer(settings)
    plan = make_plan(settings)
    if settings.show_prompt:
        for planned in plan.tasks:
            show_prompt(planned.data, plan.subject.tokenizer)
        return None
    return plan
