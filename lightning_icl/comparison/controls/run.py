"""Controls inside a comparison: made after the main fine-tuning, observed in its pass, saved beside its figures."""

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
from lightning_icl.comparison.plan import PlannedTask
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.errors import NumericalError, UserError
from lightning_icl.interrupts import interruptible
from lightning_icl.models.kv import LaidOver, Trained
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.finetuning import Finetuned, KVFinetuning
from lightning_icl.probing.layer_causal import Reading
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import Demonstrations, KVOverlay


@dataclass(kw_only=True)
class Controlled:
    """The controls of one task."""

    contrasts: dict[str, list[Contrast]] = field(default_factory=dict)
    """By control, the contrasts it makes."""
    impossible: dict[str, str] = field(default_factory=dict)
    """By control, why it cannot be made here."""
    seconds: float = 0.0
    """Time of their fine-tunings."""


def make_controls(
    settings: CompareSettings,
    planned: PlannedTask,
    probe: ICLProbe,
    controls: tuple[Control, ...],
    rates: Mapping[str, float] = MappingProxyType({}),
) -> Controlled:
    """Fine-tune what the controls need, and give the probe their contrasts.

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
    for control in controls:
        ground = _ground(settings, planned, probe, rates.get(control.name, planned.learning_rate), made)
        try:
            made.contrasts[control.name] = control.contrasts(ground)
        except UserError as error:
            made.impossible[control.name] = str(error)
    probe.also_compare([contrast for contrasts in made.contrasts.values() for contrast in contrasts])
    if settings.checks_rounding:
        with suppress(NumericalError):  # where the main fine-tuning stays finite by chance alone
            probe.also_compare([rounding_contrast(_ground(settings, planned, probe, planned.learning_rate, made))])
    return made


def _ground(settings: CompareSettings, planned: PlannedTask, probe: ICLProbe, rate: float, made: Controlled) -> Ground:
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
        probe = ICLProbe(model, demonstrations)
        trainer = make_trainer(settings, [KVFinetuning(rate or own_rate, trained, layer_causal)], title=title)
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
    for name in CONTROLS:
        if name in made.contrasts:
            section |= measured(name, made.contrasts[name], probe)
        elif name in made.impossible:
            section[name] = left_out(name, made.impossible[name])
    return section
