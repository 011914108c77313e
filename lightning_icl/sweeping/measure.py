"""One group of runs: fine-tune each, observe all in one pass over the queries, choose on held-out rows, save.

The zero-shot condition is observed once for the group and each in-context condition once, however many learning rates
there are. A rate that diverges is recorded with its reason and disturbs no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import lightning as L
import torch
from transformers import PreTrainedModel

from lightning_icl.comparison.assemble import plain_comparison, prediction_rows, versions
from lightning_icl.comparison.group import fit_together
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.data.module import ICLDataModule
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.findings import Prediction, accuracy
from lightning_icl.probing.finetuning_run import Finetuned, FinetuningRun
from lightning_icl.probing.group_memory import groups_within
from lightning_icl.probing.heldout import HeldOutAccuracy
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.process_watch import guarded
from lightning_icl.records import VIEWS
from lightning_icl.report.sweep import RUN, SELECTION
from lightning_icl.results import PREDICTIONS, to_json, to_json_lines
from lightning_icl.saving.workspace import Workspace
from lightning_icl.sweeping._progress import Advance, Spend
from lightning_icl.sweeping.cost import STEP_PRICE, Runs, finetunings, held_out_tokens, query_tokens, step_tokens
from lightning_icl.sweeping.plan import SCHEMA, SweepPlan, TaskSweep, Unit


@dataclass(kw_only=True)
class _Outcome:
    """How far a run has come."""

    unit: Unit
    rate: float
    tuned: Finetuned | None = None
    diverged: str | None = None
    held_out: float | None = None
    icl: str = "icl"

    @property
    def name(self) -> str:
        """Of its contrast and its fine-tuned condition."""
        return f"ft/{self.unit.shots}/{self.unit.seed}/{self.rate!r}"


def measure_group(
    plan: SweepPlan, task: TaskSweep, model: PreTrainedModel, runs: Runs, spend: Spend, space: Workspace
) -> None:
    """Make some runs of a task and save them.

    Args:
        plan: the sweep.
        task: the task of the runs.
        model: its model.
        runs: units and learning rates whose fine-tuned weights fit the memory together.
        spend: moves the bar.
        space: the sweep's folder.

    Raises:
        OutputError: results cannot be written.
        NumericalError: the model itself yields NaN, without any fine-tuning.
    """
    settings = plan.settings.compare(task.model)
    outcomes = [_Outcome(unit=unit, rate=rate) for unit, rate in runs]
    _finetune(settings, model, task, outcomes, plan.settings.overlay_memory, spend)
    probe = _observe(settings, model, task, outcomes, spend)
    if task.held_out:
        _choose(settings, model, task, outcomes, probe, spend)
    for outcome in outcomes:
        _save(plan, task, outcome, probe, space)


def _finetune(
    settings: CompareSettings,
    model: PreTrainedModel,
    task: TaskSweep,
    outcomes: list[_Outcome],
    gigabytes: float,
    spend: Spend,
) -> None:
    """Fine-tune runs, as many together as the memory holds."""
    # Outcomes stand in the order of the runs, so groups take theirs from the front.
    waiting = iter(outcomes)
    for runs in groups_within(finetunings(task, [(item.unit, item.rate) for item in outcomes]), model, gigabytes):
        _finetune_group(settings, model, runs, list(islice(waiting, len(runs))))
        spend(STEP_PRICE * sum(step_tokens(run.demonstrations) for run in runs))


def _finetune_group(
    settings: CompareSettings, model: PreTrainedModel, runs: Sequence[FinetuningRun], outcomes: list[_Outcome]
) -> None:
    group = fit_together(settings, model, runs)
    for number, outcome in enumerate(outcomes):
        tuned = group.finetuned.get(number)
        if tuned is None:
            outcome.diverged = group.diverged[number]
        # A step can overflow to infinity with a finite loss; the next pass would only say NaN.
        elif all(bool(torch.isfinite(tensor).all()) for tensor in tuned.overlay.tensors.values()):
            outcome.tuned = tuned
        else:
            outcome.diverged = f"The fine-tuned weights are not finite (learning rate {outcome.rate})."


def _observe(
    settings: CompareSettings, model: PreTrainedModel, task: TaskSweep, outcomes: list[_Outcome], spend: Spend
) -> ICLProbe:
    """One pass over the reported queries, under every condition of the group."""
    first = outcomes[0].unit
    contrasts = []
    for outcome in outcomes:
        # The probe's own condition serves the first unit; others have one of their own.
        outcome.icl = "icl" if outcome.unit == first else outcome.unit.icl
        if outcome.tuned is not None:
            demonstrations = task.data[outcome.unit].demonstrations
            contrast = Contrast.of(demonstrations, outcome.tuned, name=outcome.name, icl=outcome.icl, ft=outcome.name)
            contrasts.append(contrast)
    probe = ICLProbe(
        model,
        task.data[first].demonstrations,
        contrasts=contrasts,
        replicates=0,  # a sweep reports no intervals, and has hundreds of contrasts
        drop_nonfinite=True,
    )
    # Nothing to compare: every run of the group diverged.
    if not contrasts:
        return probe
    tokens = len(probe.conditions) * query_tokens(task.data[first])
    # Prompts are run once each, however many conditions share them.
    prompts = {item.prefix_token_ids for item in probe.conditions.values()}
    _validate(settings, probe, task.data[first], tokens + sum(map(len, prompts)), spend)
    for outcome in outcomes:
        # A run may also diverge while it is observed.
        outcome.diverged = outcome.diverged or probe.dropped.get(outcome.name)
    return probe


def _choose(
    settings: CompareSettings,
    model: PreTrainedModel,
    task: TaskSweep,
    outcomes: list[_Outcome],
    probe: ICLProbe,
    spend: Spend,
) -> None:
    """Fine-tuned accuracy of every run on the held-out queries."""
    sound = [outcome for outcome in outcomes if outcome.diverged is None]
    if not sound:
        return
    conditions = probe.conditions
    looks = [conditions[outcome.name] for outcome in sound]
    module = HeldOutAccuracy(model, looks, task.held_out, settings.batch_tokens)
    _validate(settings, module, None, len(sound) * held_out_tokens(task), spend)
    for outcome in sound:
        outcome.held_out = module.accuracy.get(outcome.name)
        # What diverges only on held-out rows is as useless.
        outcome.diverged = module.dropped.get(outcome.name)


def _validate(
    settings: CompareSettings, module: L.LightningModule, data: ICLDataModule | None, tokens: int, spend: Spend
) -> None:
    trainer = make_trainer(settings, [Advance(tokens, spend)])
    with guarded(trainer):
        trainer.validate(module, datamodule=data, verbose=False)


def _save(plan: SweepPlan, task: TaskSweep, outcome: _Outcome, probe: ICLProbe, space: Workspace) -> None:
    """Write one run's folder, whole or not at all."""
    # A diverged run has no predictions but is recorded, so that it is not made again.
    predictions = _predictions(outcome, probe) if outcome.diverged is None else []
    with space.replacing(outcome.unit.run_folder(outcome.rate)) as part:
        rows = prediction_rows(predictions, task.data[outcome.unit].query_texts)
        (part / PREDICTIONS).write_text(to_json_lines(rows), encoding="utf-8")
        (part / RUN).write_text(to_json(_content(plan, task, outcome, probe, predictions)), encoding="utf-8")


def _predictions(outcome: _Outcome, probe: ICLProbe) -> list[Prediction]:
    """What the run's own conditions say, under their plain names."""
    names = {"zsl": "zsl", "icl": outcome.icl, "ft": outcome.name}
    return [
        Prediction(
            index=prediction.index,
            gold=prediction.gold,
            # Saved under the names every run has, whatever it was called in the pass.
            scores={name: prediction.scores[own] for name, own in names.items()},
        )
        for prediction in probe.predictions
    ]


def _content(
    plan: SweepPlan, task: TaskSweep, outcome: _Outcome, probe: ICLProbe, predictions: list[Prediction]
) -> dict[str, Any]:
    unit, tuned = outcome.unit, outcome.tuned
    demonstrations = task.data[unit].demonstrations
    sound = outcome.diverged is None
    return {
        "schema": SCHEMA,
        "fingerprint": plan.fingerprint(unit),
        "model": unit.model,
        "task": unit.task,
        "shots": unit.shots,
        "seed": unit.seed,
        "lr": outcome.rate,
        "demonstrations": {
            "count": len(demonstrations),
            "indices": list(demonstrations.indices),
            "hash": demonstrations.hash,
        },
        "diverged": outcome.diverged,
        "queries": len(predictions),
        "accuracy": {name: accuracy(predictions, name) for name in VIEWS},
        "comparison": plain_comparison(probe.comparisons[outcome.name]) if sound else None,
        "finetune": None if tuned is None else _finetuning(tuned),
        "selection": {
            "by": SELECTION[plan.settings.select],
            "select": plan.settings.select,
            "held_out_indices": [query.index for query in task.held_out],
            # Under `paper` the reported queries choose, as the paper's authors did.
            "accuracy": outcome.held_out if task.held_out else accuracy(predictions, "ft"),
        },
        "versions": versions(),
    }


def _finetuning(tuned: Finetuned) -> dict[str, Any]:
    return {
        "loss": list(tuned.losses),
        "update_norm_per_layer": list(tuned.update_norms),
        "overlay_hash": tuned.overlay.hash,
    }
