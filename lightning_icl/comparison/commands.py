"""The commands `compare`, `fit` and `validate`: plan, load, fine-tune, probe, save, print."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console

from lightning_icl.comparison.assemble import VIEWS, assemble, prediction_rows
from lightning_icl.comparison.controls.run import Controlled, controls_section, make_controls
from lightning_icl.comparison.overlays import FINETUNE, read_finetuned, write_finetuned
from lightning_icl.comparison.plan import Plan, PlannedTask, make_plan, resolved
from lightning_icl.comparison.settings import CompareSettings, ValidateSettings
from lightning_icl.comparison.trainer import DTYPES, interruptible, make_trainer, quiet
from lightning_icl.data.preview import show_prompt
from lightning_icl.errors import UserError
from lightning_icl.models.loading import load_model
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe, accuracy
from lightning_icl.report.show import print_summary
from lightning_icl.results import (
    CONFIG,
    PREDICTIONS,
    RESULTS,
    check_output,
    finished_folder,
    to_json,
    to_json_lines,
    write_text,
)


def compare(settings: CompareSettings) -> Path | None:
    """Fine-tune, then compare zero-shot, in-context and fine-tuned; save and print.

    Returns:
        The run's folder; None where only the prompt was shown.

    Raises:
        UserError: anything the user gave that cannot be used.
    """
    plan = _begin(settings, RESULTS)
    if plan is None:
        return None
    model = load_model(plan.source, DTYPES[settings.trainer_precision], device_map=settings.device_map)
    for planned in plan.tasks:
        probe = ICLProbe(model, planned.data.demonstrations)
        trainer = make_trainer(settings, [KVFinetuning(planned.learning_rate)])
        with interruptible(trainer):
            trainer.fit(probe, datamodule=planned.data)
            controlled = make_controls(settings, planned, probe, plan.controls, plan.control_rates)
            trainer.validate(probe, datamodule=planned.data, verbose=False)
        _save(plan, planned, probe, controlled)
    _finish(plan)
    return plan.out


def fit(settings: CompareSettings) -> Path | None:
    """Only the restricted fine-tuning; saves overlays and query vectors for `validate`.

    Returns:
        The run's folder; None where only the prompt was shown.

    Raises:
        UserError: anything the user gave that cannot be used.
    """
    _refuse_controls(settings)
    plan = _begin(settings, FINETUNE)
    if plan is None:
        return None
    model = load_model(plan.source, DTYPES[settings.trainer_precision], device_map=settings.device_map)
    for planned in plan.tasks:
        probe = ICLProbe(model, planned.data.demonstrations)
        trainer = make_trainer(settings, [KVFinetuning(planned.learning_rate)])
        with interruptible(trainer):
            trainer.fit(probe, datamodule=planned.data)
        _save_finetuned(plan, planned, probe)
    _say(f"Fine-tuned weights are in [bold]{plan.out}[/]. Probe them with: validate --overlay {plan.out}")
    return plan.out


def validate(settings: ValidateSettings) -> Path | None:
    """Only the probe, with a fine-tuning made by `fit` or without.

    Returns:
        The run's folder; None where only the prompt was shown.

    Raises:
        UserError: anything the user gave that cannot be used, such as an overlay of other demonstrations.
    """
    _refuse_controls(settings)
    plan = _begin(settings, RESULTS)
    if plan is None:
        return None
    overlay = None if settings.overlay is None else Path(settings.overlay).expanduser()
    tuned = {
        planned.task.name: read_finetuned(overlay / planned.task.name, plan.source.name, planned.data.demonstrations)
        for planned in plan.tasks
        if overlay is not None
    }
    model = load_model(plan.source, DTYPES[settings.trainer_precision], device_map=settings.device_map)
    for planned in plan.tasks:
        probe = ICLProbe(model, planned.data.demonstrations)
        probe.finetuned = tuned.get(planned.task.name)
        trainer = make_trainer(settings, [])
        with interruptible(trainer):
            trainer.validate(probe, datamodule=planned.data, verbose=False)
        _save(plan, planned, probe)
    _finish(plan)
    return plan.out


def _refuse_controls(settings: CompareSettings) -> None:
    for flag, given in (("--controls", settings.controls), ("--control-lr", settings.control_lr)):
        if given:
            raise UserError(f"{flag} {given}: controls fine-tune and probe; use them with `compare`.")


def _begin(settings: CompareSettings, marker: str) -> Plan | None:
    """The plan, with every user mistake found; None where the prompt was all that was asked for."""
    quiet()
    plan = make_plan(settings)
    if settings.show_prompt:
        for planned in plan.tasks:
            show_prompt(planned.data, plan.tokenizer)
        return None
    _prepare_output(plan, marker)
    return plan


@rank_zero_only
def _prepare_output(plan: Plan, marker: str) -> None:
    tasks = [planned.task.name for planned in plan.tasks]
    check_output(plan.out, tasks, marker, plan.settings.overwrite)
    write_text(plan.out / CONFIG, _yaml(dataclasses.asdict(plan.settings)))
    for planned in plan.tasks:
        used, asked = len(planned.data.demonstrations), plan.settings.shots
        if used < asked:
            _say(f"[yellow]{planned.task.name}: {used} demonstrations of the {asked} asked for fit.[/]")


@rank_zero_only
def _save(plan: Plan, planned: PlannedTask, probe: ICLProbe, controlled: Controlled | None = None) -> None:
    """Write one task's folder, whole or not at all."""
    content = assemble(plan, planned, probe)
    if plan.controls and controlled is not None:
        content["controls"] = controls_section(controlled, probe)
    with finished_folder(plan.out / planned.task.name) as part:
        (part / RESULTS).write_text(to_json(content), encoding="utf-8")
        rows = prediction_rows(probe.predictions, planned.data.query_texts)
        (part / PREDICTIONS).write_text(to_json_lines(rows), encoding="utf-8")
        (part / CONFIG).write_text(_yaml(resolved(plan, planned)), encoding="utf-8")
        if probe.finetuned is not None:
            write_finetuned(part, probe, plan.source.name, queries=False)
    figures = ", ".join(
        f"{name.upper()} {100 * accuracy(probe.predictions, name):.1f}"
        for name in VIEWS
        if name in probe.predictions[0].scores
    )
    seconds = sum(probe.seconds[name] for name in ("prefix", "finetune", "validate"))
    _say(f"{planned.task.name}: {len(probe.predictions)} queries, accuracy {figures} ({seconds:.1f} s)")


@rank_zero_only
def _save_finetuned(plan: Plan, planned: PlannedTask, probe: ICLProbe) -> None:
    with finished_folder(plan.out / planned.task.name) as part:
        write_finetuned(part, probe, plan.source.name, queries=True)
        (part / CONFIG).write_text(_yaml(resolved(plan, planned)), encoding="utf-8")


@rank_zero_only
def _finish(plan: Plan) -> None:
    print_summary(plan.out, plan.settings.tables, [planned.task.name for planned in plan.tasks])
    _say(f"Results are in [bold]{plan.out}[/]; this table again: lightning-icl report {plan.out}")


@rank_zero_only
def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True)


def _yaml(content: Mapping[str, object]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))
