"""Controls inside a comparison: made after the main fine-tuning, observed in its pass, saved beside its figures."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedModel

from lightning_icl.comparison.controls._context import ControlContext, Fit
from lightning_icl.comparison.controls._figures import left_out, measured
from lightning_icl.comparison.controls.catalogue import CONTROLS, Control
from lightning_icl.comparison.controls.rounding import rounding_contrast
from lightning_icl.comparison.group import fit_together
from lightning_icl.comparison.plan import PlannedTask
from lightning_icl.comparison.progress import say
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.errors import NumericalError, UserError
from lightning_icl.models.kv import Trained, with_overlay
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.finetuning_run import Finetuned, FinetuningRun
from lightning_icl.probing.group_memory import group_bytes, groups_within
from lightning_icl.probing.layer_causal import Reading
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.process_watch import guarded
from lightning_icl.records import Demonstrations, KVOverlay


@dataclass(kw_only=True)
class Controlled:
    """The controls of one task."""

    contrasts: dict[str, list[Contrast]] = field(default_factory=dict)
    """By control, the contrasts it makes."""
    impossible: dict[str, str] = field(default_factory=dict)
    """By control, why it cannot be made here."""
    learnt: dict[FinetuningRun, Finetuned | NumericalError] = field(default_factory=dict)
    """What has been fine-tuned side by side, or why it could not be."""
    seconds: float = 0.0
    """Time of their fine-tunings."""


def make_controls(
    settings: CompareSettings,
    planned: PlannedTask,
    probe: ICLProbe,
    controls: tuple[Control, ...],
    rates: Mapping[str, float] = MappingProxyType({}),
) -> Controlled:
    """Fine-tune what the controls need, and give the probe their contrasts; see `contrasts_of`."""
    controlled = contrasts_of(settings, planned, probe, controls, rates)
    if probe.finetuned is None:
        return controlled
    probe.also_compare([contrast for contrasts in controlled.contrasts.values() for contrast in contrasts])
    if settings.checks_rounding:
        # Lightning would write a version of the log for each of the many fits.
        settings = replace(settings, logger=None)
        with suppress(NumericalError):  # where the main fine-tuning stays finite by chance alone
            probe.also_compare(
                [rounding_contrast(_context(settings, planned, probe, planned.learning_rate, controlled))]
            )
    return controlled


def contrasts_of(
    settings: CompareSettings,
    planned: PlannedTask,
    probe: FinetunedModule,
    controls: tuple[Control, ...],
    rates: Mapping[str, float] = MappingProxyType({}),
) -> Controlled:
    """Fine-tune what the controls need; no contrasts where there was no main fine-tuning.

    A control that this task or model does not allow, or whose fine-tuning diverges, is left out with its reason.

    Args:
        settings: of the run.
        planned: the task.
        probe: has the main fine-tuning.
        controls: which ones.
        rates: learning rates of controls that are not to use the main one, by name.
    """
    controlled, settings = Controlled(), replace(settings, logger=None)  # only the run itself is logged
    if probe.finetuned is None:
        return controlled
    contexts = {
        control: _context(settings, planned, probe, rates.get(control.name, planned.learning_rate), controlled)
        for control in controls
    }
    _learn_together(settings, probe.model, contexts, controlled, f"{planned.task.name}, controls")
    for control, context in contexts.items():
        try:
            # A control may refuse the task or diverge; the others go on.
            controlled.contrasts[control.name] = control.contrasts(context)
        except UserError as error:
            controlled.impossible[control.name] = str(error)
    return controlled


def _learn_together(
    settings: CompareSettings,
    model: PreTrainedModel,
    contexts: Mapping[Control, ControlContext],
    controlled: Controlled,
    title: str,
) -> None:
    """Fine-tune side by side what controls learn from demonstrations of their own.

    The main fine-tuning is not among them: its figures are to the last bit those of a run without controls.
    """
    runs: dict[FinetuningRun, None] = {}
    for control, context in contexts.items():
        with suppress(UserError):  # the same error is raised again, and recorded, where its contrasts are made
            demonstration_sets = {} if control.demonstration_sets is None else control.demonstration_sets(context)
            # Keyed by run: two controls that learn the same share one fine-tuning.
            runs |= {
                FinetuningRun(learning_rate=context.learning_rate, demonstrations=item): None
                for item in demonstration_sets.values()
            }
    started = time.perf_counter()
    for group in groups_within(list(runs), model):
        if len(group) > 1:
            memory = group_bytes(model, group) / 1e9
            say(f"{title}: {len(group)} fine-tunings take their steps together, in about {memory:.1f} GB.")
        fitted = fit_together(settings, model, group, title=title)
        for number, run in enumerate(group):
            # An error is kept and raised where the control asks for its fine-tuning.
            controlled.learnt[run] = fitted.finetuned.get(number) or NumericalError(fitted.diverged[number])
    controlled.seconds += time.perf_counter() - started


def _context(
    settings: CompareSettings, planned: PlannedTask, probe: FinetunedModule, rate: float, controlled: Controlled
) -> ControlContext:
    assert probe.finetuned is not None
    return ControlContext(
        model=probe.model,
        data=planned.data,
        finetuned=probe.finetuned,
        fit=_fit(settings, planned, probe.model, rate, controlled),
        learning_rate=rate,
        neighbour=planned.neighbour,
        seed=planned.data.demonstrations.seed,
    )


def _fit(
    settings: CompareSettings,
    planned: PlannedTask,
    model: PreTrainedModel,
    own_rate: float,
    controlled: Controlled,
) -> Fit:
    """Fine-tuning as the main one goes, by `Trainer.fit`; its seconds are added to those of the controls."""

    title = f"{planned.task.name}, controls"

    def fit(
        demonstrations: Demonstrations,
        *,
        trained: Trained = "kv",
        base: KVOverlay | None = None,
        rate: float | None = None,
        layer_causal: Reading | None = None,
    ) -> Finetuned:
        run = FinetuningRun(learning_rate=rate or own_rate, demonstrations=demonstrations)
        # Only plain key/value fine-tunings from the model's own weights were made side by side.
        learnt = controlled.learnt.get(run) if trained == "kv" and base is None and layer_causal is None else None
        if isinstance(learnt, NumericalError):
            raise learnt
        if learnt is not None:
            return learnt
        probe = ICLProbe(model, demonstrations)
        trainer = make_trainer(settings, [KVFinetuning(rate or own_rate, trained, layer_causal)], title=title)
        # On while the trainer copies its masters, which therefore start from them.
        with with_overlay(model, base), guarded(trainer):
            trainer.fit(probe, datamodule=planned.data.teaching(demonstrations))
        controlled.seconds += probe.finetuning_seconds
        assert probe.finetuned is not None
        return probe.finetuned

    return fit


def controls_section(controlled: Controlled, probe: ICLProbe) -> dict[str, Any]:
    """The content of `controls` in `results.json`: by control the figures that the main comparison has."""
    section: dict[str, Any] = {}
    # In the catalogue's order, whatever the order on the command line.
    for name in CONTROLS:
        if name in controlled.contrasts:
            section |= measured(name, controlled.contrasts[name], probe)
        elif name in controlled.impossible:
            section[name] = left_out(name, controlled.impossible[name])
    return section
