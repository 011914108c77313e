"""From a probe that has validated to the content of `results.json` (schema 1)."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from torch import Tensor

from lightning_icl._version import __version__
from lightning_icl.comparison._environment import environment
from lightning_icl.comparison._notes import notes_of
from lightning_icl.comparison.controls import rounding as rounding_check
from lightning_icl.comparison.plan import Plan, PlannedTask
from lightning_icl.comparison.uncertainty import uncertainty
from lightning_icl.comparison.undefined import rounding, undefined, undefined_queries
from lightning_icl.measures import compared_levels
from lightning_icl.metrics.forms import flattened
from lightning_icl.models.architecture import head_counts
from lightning_icl.models.fingerprint import commit_of
from lightning_icl.probing.contrast import MAIN, Comparison
from lightning_icl.probing.findings import Prediction, accuracy, best_answer
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import VIEWS
from lightning_icl.results import SCHEMA

_PACKAGES = ("torch", "lightning", "transformers", "datasets", "torchmetrics")


def assemble(plan: Plan, planned: PlannedTask, probe: ICLProbe) -> dict[str, Any]:
    """The content of `results.json` for one task; NaN marks what is undefined, with reasons under `undefined`."""
    conditions = VIEWS if probe.finetuned is not None else VIEWS[:2]
    measured = probe.predictions[0].scores.keys()
    seconds = probe.seconds | ({} if planned.choice is None else {"rate": planned.choice_seconds})
    content: dict[str, Any] = {
        "schema": SCHEMA,
        # Folders are listed by name; this number keeps the order in which tasks were asked for.
        "task_number": [item.name for item in plan.tasks].index(planned.name),
        "model": _model(plan, probe),
        "task": {
            "name": planned.task.name,
            "choices": planned.task.choices,
            "labels": list(planned.task.answers),
            "template": planned.data.template,
            "probe_token": plan.settings.probe_token,
            "chat": plan.settings.chat,
            "separator": planned.data.layout.separator,
            "separator_token_ids": list(planned.data.demonstrations.sep),
            "answer_token_ids": [list(ids) for ids in planned.data.answers],
            "rows": planned.data.origin,
            "joined_answers": list(planned.data.joined_answers),
            "repeated_queries": planned.data.repeated_queries,
        },
        "demonstrations": {**demonstrations_record(probe), "texts": planned.data.demonstration_texts},
        "finetune": _checked(finetune_record(probe), planned, probe),
        "fingerprints": fingerprints_record(plan, planned, probe),
        "queries": {"count": len(probe.predictions)},
        "answers": answers_record(probe.predictions, conditions),
        "accuracy": {
            # Keys of all three views are always there, so that readers need not ask.
            **{name: accuracy(probe.predictions, name) if name in conditions else None for name in VIEWS},
            **{name: accuracy(probe.predictions, name) for name in ("icl_calibrated",) if name in measured},
            "majority": majority(probe.predictions),
        },
        **(plain_comparison(probe.comparison) if probe.comparison is not None else dict.fromkeys(compared_levels())),
        # The rounding check is no comparison of its own, so it gets no intervals.
        **uncertainty(*rounding_check.without_check(probe)),
        "timing": {f"{name}_s": round(taken, 3) for name, taken in seconds.items()},
        "versions": versions(),
        "environment": environment(probe.trainer, planned.data),
    }
    main = next((contrast for contrast in probe.studied if contrast.name == MAIN), None)
    content["undefined"] = undefined(probe.comparison, main)
    if probe.comparison is not None:
        content |= {"undefined_queries": undefined_queries(probe.comparison), "rounding": rounding(probe.comparison)}
    # Last, since notes read the rest of the content.
    content["notes"] = notes_of(content)
    return content


def answers_record(predictions: Sequence[Prediction], conditions: Sequence[str]) -> dict[str, list[int]]:
    """How often each answer, by number, is right (`gold`) and is given under each condition."""
    chosen = {"gold": [prediction.gold for prediction in predictions]}
    chosen |= {name: [best_answer(prediction.scores[name]) for prediction in predictions] for name in conditions}
    most = 1 + max((number for numbers in chosen.values() for number in numbers), default=-1)
    return {name: [numbers.count(number) for number in range(most)] for name, numbers in chosen.items()}


def majority(predictions: Sequence[Prediction]) -> float:
    """Accuracy of the one answer that is right most often among the queries."""
    counts = answers_record(predictions, ())["gold"]
    return max(counts) / sum(counts) if counts else float("nan")


def prediction_rows(predictions: Sequence[Prediction], prompts: Mapping[int, str]) -> list[dict[str, Any]]:
    """Lines of `predictions.jsonl`, in data order: the main comparison's conditions only.

    Args:
        predictions: of all conditions.
        prompts: each query's text by row number.
    """
    rows = []
    for prediction in predictions:
        scores = {name: prediction.scores[name] for name in VIEWS if name in prediction.scores}
        best = {name: best_answer(own) for name, own in scores.items()}
        row = {"index": prediction.index, "gold": prediction.gold}
        rows.append({**row, **best, "scores": scores, "prompt": prompts[prediction.index]})
    return rows


def versions() -> dict[str, str]:
    """Versions of everything that numbers may depend on."""
    return {
        "lightning_icl": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def demonstrations_record(probe: FinetunedModule) -> dict[str, Any]:
    """Which examples the prompt and the fine-tuning used."""
    chosen = probe.demonstrations
    return {
        "count": len(chosen),
        "requested": chosen.requested,
        "seed": chosen.seed,
        "indices": list(chosen.indices),
        "labels": list(chosen.labels),
        "prefix_token_ids": list(chosen.prefix_token_ids),
        "hash": chosen.hash,
    }


def fingerprints_record(plan: Plan, planned: PlannedTask, probe: FinetunedModule) -> dict[str, str | None]:
    """SHA-256 of what the figures were made from; no `overlay` where there was no fine-tuning."""
    tuned = probe.finetuned
    return {**plan.fingerprints(planned), "overlay": None if tuned is None else tuned.overlay.hash}


def finetune_record(probe: FinetunedModule) -> dict[str, Any] | None:
    """How fine-tuning went; None where there was none."""
    tuned = probe.finetuned
    if tuned is None:
        return None
    return {
        "lr": tuned.learning_rate,
        "steps": len(tuned.losses),
        "loss": list(tuned.losses),
        "update_norm_per_layer": list(tuned.update_norms),
        "overlay_hash": tuned.overlay.hash,
    }


def _checked(finetuning: dict[str, Any] | None, planned: PlannedTask, probe: ICLProbe) -> dict[str, Any] | None:
    """With how its rate was chosen, and with what rounding of the weights does to it, where that was tried."""
    if finetuning is None:
        return None
    tried = {"choice": planned.choice, "sensitivity": rounding_check.sensitivity(probe)}
    return finetuning | {name: content for name, content in tried.items() if content is not None}


def _model(plan: Plan, probe: ICLProbe) -> dict[str, Any]:
    model = probe.model
    heads, kv_heads, _ = head_counts(model.config)
    return {
        "name": plan.subject.source.name,
        "revision": plan.subject.source.revision,
        "commit": commit_of(plan.subject.source),
        "adapter": None if plan.subject.source.adapter is None else str(plan.subject.source.adapter),
        "architecture": str(model.config.model_type),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": int(model.config.num_hidden_layers),
        "heads": heads,
        "kv_heads": kv_heads,
        "dtype": str(model.dtype).removeprefix("torch."),
        "precision": plan.settings.trainer_precision,
    }


def plain_comparison(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON holds it, by level."""
    return {
        level: {key: _plain(value) for key, value in flattened(result._asdict()).items()}
        for level, result in comparison._asdict().items()
    }


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value
