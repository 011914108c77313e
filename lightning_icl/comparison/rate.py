"""A learning rate chosen for a model and a task, on training rows that nothing else uses (definitions, section 9)."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lightning import LightningModule, Trainer
from transformers import PreTrainedModel

from lightning_icl.comparison.group import fit_together
from lightning_icl.comparison.plan import PlannedTask, chooses_rate
from lightning_icl.comparison.progress import say
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.probing.finetuning_run import Finetuned, FinetuningRun
from lightning_icl.probing.group_memory import groups_within
from lightning_icl.probing.heldout import DemonstrationLoss, HeldOutAccuracy
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.process_watch import guarded
from lightning_icl.records import Condition, KVOverlay

DECADES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Rates that are tried first."""
FINER = (0.2, 0.5, 2.0, 5.0)
"""Those around the best of them, as multiples of it."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One rate, and what became of it."""

    rate: float
    accuracy: float | None = None
    """On held-out rows."""
    loss: float | None = None
    """Of the gold answer there, in nats per token."""
    demonstrations: float | None = None
    """Mean loss over the demonstrations after the last step; None where the rate could not be chosen anyhow."""
    out: str | None = None
    """Why it cannot be chosen."""


@dataclass(frozen=True, kw_only=True)
class RateChoice:
    """A rate and what speaks for it."""

    rate: float
    held_out: int
    """Rows that it was judged on."""
    before: float
    """Mean loss over the demonstrations before the first step."""
    trials: tuple[Trial, ...]
    """All rates in ascending order."""
    note: str = ""
    """What a reader must know of the choice."""

    def content(self) -> dict[str, Any]:
        """As `results.json` holds it."""
        return asdict(self) | {"trials": [asdict(trial) for trial in self.trials]}


def with_chosen_rate(settings: CompareSettings, planned: PlannedTask, model: PreTrainedModel) -> PlannedTask:
    """The task with the rate that `--lr auto` chooses for it, and what was learnt at it; as it is for other rates.

    Args:
        settings: of the run.
        planned: the task; its held-out queries are the judges.
        model: the model under study.
    """
    if not planned.held_out:
        # Only where a choice was due and impossible: other rates need no word.
        if chooses_rate(settings, planned.task):
            say(
                f"{planned.task.name}: too few training rows to choose a rate on; --lr {planned.learning_rate:g} is a "
                "guess."
            )
        return planned
    started = time.perf_counter()
    say(f"{planned.task.name}: {_cost(planned)}")
    # Before anything is learnt; every rate is measured against it.
    before = _demonstration_loss(settings, planned, model, None)
    trials, tuned = _tried(settings, planned, model, DECADES, before)
    best = chosen(trials)
    # Around the best decade only: a full grid would cost three times as much.
    if best is not None:
        # Of the decades only the best is still needed, and each is as large as all keys and values.
        tuned = {best.rate: tuned[best.rate]}
        finer, tuned_finer = _tried(settings, planned, model, [factor * best.rate for factor in FINER], before)
        trials, tuned = [*trials, *finer], tuned | tuned_finer
    choice = judged(sorted(trials, key=lambda trial: trial.rate), len(planned.held_out), before)
    say(f"{planned.task.name}: --lr auto chose {choice.rate:g}, of {len(trials)} rates. {choice.note}".rstrip())
    return replace(
        planned,
        learning_rate=choice.rate,
        choice=choice.content(),
        finetuned=tuned.get(choice.rate),
        choice_seconds=time.perf_counter() - started,
    )


def fit_once(trainer: Trainer, probe: FinetunedModule, planned: PlannedTask) -> None:
    """Fine-tune the probe, unless that was done at the same rate when it was chosen.

    Args:
        trainer: with a `KVFinetuning` at the task's rate.
        probe: of the task's demonstrations.
        planned: the task.
    """
    if planned.finetuned is None:
        trainer.fit(probe, datamodule=planned.data)
    else:
        probe.finetuned = planned.finetuned


def judged(trials: Sequence[Trial], held_out: int, before: float) -> RateChoice:
    """The best of some rates, with a note where it stands at the edge of what was tried, or where none will do.

    Args:
        trials: in ascending order of their rates.
        held_out: rows that they were judged on.
        before: mean loss over the demonstrations before the first step.
    """
    best = chosen(trials)
    note = ""
    if best is None:
        best = trials[0]
        note = "Every rate raises the loss of the demonstrations or diverges; this is the smallest."
    elif best in (trials[0], trials[-1]):
        note = "It stands at the edge of the rates tried: one beyond it may be better."
    return RateChoice(rate=best.rate, held_out=held_out, before=before, trials=tuple(trials), note=note)


def chosen(trials: Sequence[Trial]) -> Trial | None:
    """The best held-out accuracy, then the lowest loss there, then the smallest rate; None where all are out.

    >>> chosen([Trial(rate=0.1, accuracy=0.5, loss=2.0), Trial(rate=0.2, accuracy=0.5, loss=1.0)]).rate
    0.2
    """
    sound = [trial for trial in trials if trial.out is None]
    # Smallest rate last: of equals, the one that disturbs the model least.
    return min(sound, key=lambda trial: (-(trial.accuracy or 0.0), trial.loss or 0.0, trial.rate), default=None)


def _cost(planned: PlannedTask) -> str:
    """What the choice will take, beside the comparison that follows."""
    rates, steps = len(DECADES) + len(FINER), len(planned.data.demonstrations)
    queries, held_out = len(planned.data.queries), len(planned.held_out)
    return (
        f"--lr auto tries {len(DECADES)} rates, then {len(FINER)} around the best: {rates} fine-tunings of {steps} "
        f"steps, each judged on {held_out} held-out rows. The comparison takes over the best one and looks at "
        f"{queries} queries 3 times."
    )


def _tried(
    settings: CompareSettings, planned: PlannedTask, model: PreTrainedModel, rates: Sequence[float], before: float
) -> tuple[list[Trial], dict[float, Finetuned]]:
    """What comes of some rates, and by rate what was learnt.

    What a rate leaves of the demonstrations' loss is measured for the best on held-out rows, then for the next one as
    long as that raises it: the others cannot be chosen before them.

    Args:
        settings: of the run.
        planned: the task.
        model: the model under study.
        rates: to be tried.
        before: the loss of the demonstrations before fine-tuning.
    """
    tuned, diverged = _finetuned(settings, planned, model, rates)
    zsl = Condition.zero_shot(planned.data.demonstrations)
    conditions = [replace(zsl, name=repr(rate), overlay=tuned[rate].overlay) for rate in tuned]
    module = HeldOutAccuracy(model, conditions, planned.held_out, settings.batch_tokens)
    _validate(settings, planned, module, "held-out rows")
    outs = diverged | {rate: module.dropped[repr(rate)] for rate in tuned if repr(rate) in module.dropped}
    trials = [
        Trial(rate=rate, out=outs.get(rate), accuracy=module.accuracy.get(repr(rate)), loss=module.loss.get(repr(rate)))
        for rate in rates
    ]
    # The loss on the demonstrations is measured for the winner only, and for the next one if the winner drops out.
    while (best := chosen(trials)) is not None:
        after = _demonstration_loss(settings, planned, model, tuned[best.rate].overlay)
        place = trials.index(best)
        trials[place] = _learnt(best, before, after)
        if trials[place].out is None:
            break
    return trials, tuned


def _learnt(trial: Trial, before: float, after: float) -> Trial:
    """The trial with the demonstrations' loss; out where that has risen."""
    # A rate that raises the loss has not learnt the demonstrations, whatever its accuracy.
    if math.isfinite(after) and after <= before:
        return replace(trial, demonstrations=after)
    out = f"It takes the loss of the demonstrations from {before:.3f} to {after:.3f}."
    return replace(trial, demonstrations=after if math.isfinite(after) else None, out=out)


def _demonstration_loss(
    settings: CompareSettings, planned: PlannedTask, model: PreTrainedModel, overlay: KVOverlay | None
) -> float:
    """Mean loss over the demonstrations, in nats per token, with what was learnt."""
    module = DemonstrationLoss(model, planned.data.demonstrations, overlay)
    _validate(settings, planned, module, "demonstrations")
    return module.loss


def _validate(settings: CompareSettings, planned: PlannedTask, module: LightningModule, rows: str) -> None:
    trainer = make_trainer(settings, [], title=f"{planned.task.name}: rates", rows=rows)
    with guarded(trainer):
        trainer.validate(module, verbose=False)


def _finetuned(
    settings: CompareSettings, planned: PlannedTask, model: PreTrainedModel, rates: Sequence[float]
) -> tuple[dict[float, Finetuned], dict[float, str]]:
    """By rate what was learnt, or why nothing was."""
    runs = [FinetuningRun(learning_rate=rate, demonstrations=planned.data.demonstrations) for rate in rates]
    tuned: dict[float, Finetuned] = {}
    diverged: dict[float, str] = {}
    for group in groups_within(runs, model):
        fitted = fit_together(settings, model, group, title=f"{planned.task.name}: rates")
        tuned |= {group[number].learning_rate: item for number, item in fitted.finetuned.items()}
        diverged |= {group[number].learning_rate: reason for number, reason in fitted.diverged.items()}
    return tuned, diverged
