"""The command `dual-form`: plan, load, fine-tune, build the updates of every head, save, print."""

from functools import partial
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_icl.comparison.output import Run, claimed
from lightning_icl.comparison.plan import Plan, PlannedTask, make_plan, resolved_command_settings
from lightning_icl.comparison.progress import say
from lightning_icl.comparison.rate import fit_once, with_chosen_rate
from lightning_icl.comparison.trainer import check_one_process, check_trainer, make_trainer, quiet
from lightning_icl.dualform._content import dual_content
from lightning_icl.dualform._pictures import save_pictures
from lightning_icl.dualform._probe import DualProbe
from lightning_icl.dualform._synthetic import known_answers
from lightning_icl.dualform.settings import DualSettings, parse_layers
from lightning_icl.dualform.tables import DUAL_FORM, print_dual, print_synthetic
from lightning_icl.plain_yaml import to_yaml
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.process_watch import guarded
from lightning_icl.report.drawing import pyplot
from lightning_icl.results import CONFIG, to_json

_UNSAVED = ("overwrite", "synthetic")


def dual_form(settings: DualSettings) -> Path | None:
    """Show demonstrations and fine-tuning as updates of the same matrices; save and print.

    Returns:
        The run's folder; None where only the synthetic cases were asked for.

    Raises:
        UserError: anything the user gave that cannot be used, before any weights are loaded.
    """
    if settings.synthetic:
        print_synthetic(known_answers())
        return None
    # Before anything is computed: a run of minutes should not end in a missing package.
    if settings.export:
        pyplot()
    comparison = settings.comparison()
    check_one_process("dual-form")
    check_trainer(comparison)
    return carry_out(settings, make_plan(comparison))


def carry_out(settings: DualSettings, plan: Plan, *, show: bool = True) -> Path:
    """Look at the heads of a planned comparison, and save.

    Args:
        settings: of the dual form.
        plan: of the comparison.
        show: whether the tables are printed.

    Returns:
        The run's folder.

    Raises:
        UserError: the layers, the weights or the folder cannot be used.
    """
    quiet()
    layers = parse_layers(settings.layers, int(plan.subject.config.num_hidden_layers))
    # The dual form's own settings are kept with each task, so that a run of other ones is not taken for it.
    with claimed(plan, DUAL_FORM, partial(resolved_command_settings, settings, without=_UNSAVED)) as run:
        model = plan.load()
        for planned in run.pending:
            planned = with_chosen_rate(plan.settings, planned, model)
            probe = DualProbe(model, planned.data.demonstrations, layers, settings.rank)
            trainer = make_trainer(plan.settings, [KVFinetuning(planned.learning_rate)], title=planned.task.name)
            with guarded(trainer):
                fit_once(trainer, probe, planned)
                # One Trainer for both: the probe keeps what fitting left.
                trainer.validate(probe, datamodule=planned.data, verbose=False)
            _save(settings, run, planned, probe, show)
        if show:
            say(f"\nThe figures of every head are in {run.plan.out}.")
    return run.plan.out


@rank_zero_only
def _save(settings: DualSettings, run: Run, planned: PlannedTask, probe: DualProbe, show: bool) -> None:
    """Write one task's folder, whole or not at all, and print its tables if asked."""
    content = dual_content(run.plan, planned, probe)
    with run.writing(planned) as part:
        (part / DUAL_FORM).write_text(to_json(content), encoding="utf-8")
        (part / CONFIG).write_text(
            to_yaml(resolved_command_settings(settings, run.plan, planned, without=_UNSAVED)), encoding="utf-8"
        )
        pictures = save_pictures(content, part) if settings.export else []
    if show:
        print_dual(content)
    for path in pictures:
        say(f"wrote {run.plan.out / planned.task.name / path.name}")
