"""Controls inside a comparison: made after the main fine-tuning, observed in its pass, saved beside its figures."""

import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedModel

from lightning_icl.comparison.controls._figures import left_out, measured
from lightning_icl.comparison.controls._ground import Fit, Ground
from lightning_icl.comparison.controls.catalogue import CONTROLS, Control
from lightning_icl.comparison.controls.rounding import rounding_contrast
from lightning_icl.comparison.group import fit_together
from lightning_icl.comparison.plan import PlannedTask
from lightning_icl.comparison.progress import say
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.errors import NumericalError, UserError
from lightning_icl.interrupts import interruptible
from lightning_icl.models.kv import LaidOver, Trained
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.course import Finetuned, Run
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.group_memory import group_bytes, groups_within
from lightning_icl.probing.layer_causal import Reading
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import Demonstrations, KVOverlay


@dataclass(kw_only=True)
class Controlled:
    """The controls of one task."""

    contrasts: dict[str, list[Contrast]] = field(default_factory=dict)
    """By control, the contrasts it makes."""
    impossible: dict[str, str] = field(default_factory=dict)
    """By control, why it cannot be made here."""
    learnt: dict[Run, Finetuned | NumericalError] = field(default_factory=dict)
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
    made = contrasts_of(settings, planned, probe, controls, rates)
    if probe.finetuned is None:
        return made
    probe.also_compare([contrast for contrasts in made.contrasts.values() for contrast in contrasts])
    # Lightning would write a version of the log for each of the many fits.
    if settings.checks_rounding:
        settings = replace(settings, logger=None)
        with suppress(NumericalError):  # where the main fine-tuning stays finite by chance alone
            probe.also_compare([rounding_contrast(_ground(settings, planned, probe, planned.learning_rate, made))])
    return made


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
    made, settings = Controlled(), replace(settings, logger=None)  # only the run itself is logged
    if probe.finetuned is None:
        return made
    grounds = {
        control: _ground(settings, planned, probe, rates.get(control.name, planned.learning_rate), made)
        for control in controls
    }
    _learn_together(settings, probe.model, grounds, made, f"{planned.task.name}, controls")
    for control, ground in grounds.items():
        try:
            # A control may refuse the task or diverge; the others go on.
            made.contrasts[control.name] = control.contrasts(ground)
        except UserError as error:
            made.impossible[control.name] = str(error)
    return made


def _learn_together(
    settings: CompareSettings, model: PreTrainedModel, grounds: Mapping[Control, Ground], made: Controlled, title: str
) -> None:
    """Fine-tune side by side what controls learn from demonstrations of their own.

    The main fine-tuning is not among them: its figures are to the last bit those of a run without controls.
    """
    runs: dict[Run, None] = {}
    for control, ground in grounds.items():
        with suppress(UserError):  # the same error is raised again, and recorded, where its contrasts are made
            lessons = {} if control.lessons is None else control.lessons(ground)
            # Keyed by run: two controls that learn the same share one fine-tuning.
            runs |= {Run(learning_rate=ground.learning_rate, demonstrations=item): None for item in lessons.values()}
    started = time.perf_counter()
    for group in groups_within(list(runs), model):
        if len(group) > 1:
            memory = group_bytes(model, group) / 1e9
            say(f"{title}: {len(group)} fine-tunings take their steps together, in about {memory:.1f} GB.")
        fitted = fit_together(settings, model, group, title=title)
        for number, run in enumerate(group):
            # An error is kept and raised where the control asks for its fine-tuning.
            made.learnt[run] = fitted.finetuned.get(number) or NumericalError(fitted.diverged[number])
    made.seconds += time.perf_counter() - started


def _ground(
    settings: CompareSettings, planned: PlannedTask, probe: FinetunedModule, rate: float, made: Controlled
) -> Ground:
    assert probe.finetuned is not None
    return Ground(
        model=probe.model,
        data=planned.data,
        finetuned=probe.finetuned,
        fit=_fit(settings, planned, probe.model, rate, made),
        learning_rate=rate,
        neighbour=planned.neighbour,
        seed=planned.data.demonstrations.seed,
    )


def _fit(
    settings: CompareSettings,
    planned: PlannedTask,
    model: PreTrainedModel,
    own_rate: float,
    made: Controlled,
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
        run = Run(learning_rate=rate or own_rate, demonstrations=demonstrations)
        # Only plain key/value fine-tunings from the model's own weights were made side by side.
        learnt = made.learnt.get(run) if trained == "kv" and base is None and layer_causal is None else None
        if isinstance(learnt, NumericalError):
            raise learnt
        if learnt is not None:
            return learnt
        probe = ICLProbe(model, demonstrations)
        trainer = make_trainer(settings, [KVFinetuning(rate or own_rate, trained, layer_causal)], title=title)
        # On while the trainer copies its masters, which therefore start from them.
        weights = nullcontext() if base is None else LaidOver(model, base).active()
        with weights, interruptible():
            trainer.fit(probe, datamodule=planned.data.teaching(demonstrations))
        made.seconds += probe.finetuning_seconds
        assert probe.finetuned is not None
        return probe.finetuned

    return fit


def controls_section(made: Controlled, probe: ICLProbe) -> dict[str, Any]:
    """The content of `controls` in `results.json`: by control the figures that the main comparison has."""
    section: dict[str, Any] = {}
    # In the catalogue's order, whatever the order on the command line.
    for name in CONTROLS:
        if name in made.contrasts:
            section |= measured(name, made.contrasts[name], probe)
        elif name in made.impossible:
            section[name] = left_out(name, made.impossible[name])
    return section
