"""The command `dual-form`: plan, load, fine-tune, build the updates of every head, save, print."""

import dataclasses
from pathlib import Path

from rich.console import Console

from lightning_icl.comparison.plan import Plan, PlannedTask, make_plan, resolved
from lightning_icl.comparison.trainer import DTYPES, interruptible, make_trainer, quiet
from lightning_icl.dualform.content import DUAL_FORM, dual_content
from lightning_icl.dualform.pictures import check_matplotlib, save_pictures
from lightning_icl.dualform.probe import DualProbe
from lightning_icl.dualform.settings import DualSettings, parse_layers
from lightning_icl.dualform.synthetic import known_answers
from lightning_icl.dualform.tables import print_dual, print_synthetic
from lightning_icl.models.loading import load_model
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.results import CONFIG, check_output, finished_folder, to_json

# Columns of tables that are written to a file or pipe, where nothing says how wide they may be.
_WIDE = 132


def dual_form(settings: DualSettings) -> Path | None:
    """Show demonstrations and fine-tuning as updates of the same matrices; save and print.

    Returns:
        The run's folder; None where only the synthetic cases were asked for.

    Raises:
        UserError: anything the user gave that cannot be used, before any weights are loaded.
    """
    quiet()
    if settings.synthetic:
        print_synthetic(known_answers(), _console())
        return None
    plan, layers = _begin(settings)
    model = load_model(plan.source, DTYPES[plan.settings.trainer_precision])
    for planned in plan.tasks:
        probe = DualProbe(model, planned.data.demonstrations, layers, settings.rank)
        trainer = make_trainer(plan.settings, [KVFinetuning(planned.learning_rate)])
        with interruptible(trainer):
            trainer.fit(probe, datamodule=planned.data)
            trainer.validate(probe, datamodule=planned.data, verbose=False)
        _save(settings, plan, planned, probe)
    _console().print(f"\nThe figures of every head are in [bold]{plan.out}[/].", highlight=False, soft_wrap=True)
    return plan.out


def _begin(settings: DualSettings) -> tuple[Plan, tuple[int, ...]]:
    """The plan and the layers, with every user mistake found."""
    if settings.export:
        check_matplotlib()
    plan = make_plan(settings.comparison())
    layers = parse_layers(settings.layers, int(plan.config.num_hidden_layers))
    check_output(plan.out, [planned.task.name for planned in plan.tasks], DUAL_FORM, settings.overwrite)
    for planned in plan.tasks:
        used = len(planned.data.demonstrations)
        if used < settings.shots:
            note = f"[yellow]{planned.task.name}: {used} demonstrations of the {settings.shots} asked for fit.[/]"
            _console().print(note, highlight=False)
    return plan, layers


def _save(settings: DualSettings, plan: Plan, planned: PlannedTask, probe: DualProbe) -> None:
    """Write one task's folder, whole or not at all, and print its tables."""
    content = dual_content(plan, planned, probe)
    console = _console()
    folder = plan.out / planned.task.name
    with finished_folder(folder) as part:
        (part / DUAL_FORM).write_text(to_json(content), encoding="utf-8")
        (part / CONFIG).write_text(_config(settings, plan, planned), encoding="utf-8")
        pictures = save_pictures(content, part) if settings.export else []
    print_dual(content, console)
    for path in pictures:
        console.print(f"wrote {folder / path.name}", highlight=False, soft_wrap=True)


def _config(settings: DualSettings, plan: Plan, planned: PlannedTask) -> str:
    """The settings of one task as they were carried out: `--config` of these runs it again."""
    import yaml

    carried_out = {**dataclasses.asdict(settings), **resolved(plan, planned)}
    names = {field.name for field in dataclasses.fields(settings)} - {"overwrite", "synthetic"}
    content = {name: value for name, value in carried_out.items() if name in names}
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _console() -> Console:
    console = Console()
    return console if console.is_terminal or console.width >= _WIDE else Console(width=_WIDE)
