"""From a validated `WeightUpdateProbe` to the content of `weight_update.json` (schema 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_icl.comparison.assemble import demonstrations_record, finetune_record, fingerprints_record, versions
from lightning_icl.comparison.plan import Plan, PlannedTask
from lightning_icl.comparison.uncertainty import accuracies
from lightning_icl.data.queries import Query
from lightning_icl.metrics.bootstrap import LEVEL, Bootstrapped
from lightning_icl.models.architecture import head_counts
from lightning_icl.probing.findings import accuracy
from lightning_icl.results import SCHEMA
from lightning_icl.weightupdate._matrices import RANK
from lightning_icl.weightupdate._probe import WeightUpdateProbe, part_name, parts_of


def weight_update_content(
    plan: Plan,
    planned: PlannedTask,
    probe: WeightUpdateProbe,
    held_out: Sequence[Query],
    impossible: Mapping[str, str],
) -> dict[str, Any]:
    """Everything shown, and what it was made of; NaN marks what is undefined.

    Args:
        plan: of the run.
        planned: the task.
        probe: has validated.
        held_out: prompts that the rungs are expanded about.
        impossible: by control why it cannot be made here.
    """
    heads, kv_heads, width = head_counts(probe.model.config)
    assert probe.factors is not None
    assert probe.matrices is not None
    return {
        "schema": SCHEMA,
        "kind": "weight_update",
        "model": {
            "name": plan.subject.source.name,
            "architecture": str(probe.model.config.model_type),
            "layers": probe.layers,
            "heads": heads,
            "kv_heads": kv_heads,
            "head_width": width,
            "dtype": str(probe.model.dtype).removeprefix("torch."),
        },
        "task": {"name": planned.task.name, "template": planned.data.template, "rows": planned.data.origin},
        "scope": probe.scope,
        "held_out": {"count": len(held_out), "indices": [query.index for query in held_out]},
        "queries": {"count": len(probe.predictions)},
        "conditions": {
            name: {"accuracy": accuracy(probe.predictions, name), **metrics.figures()}
            for name, metrics in probe.rungs.items()
        },
        "intervals": _intervals(probe),
        "interval_level": LEVEL,
        "per_layer": {name: metrics.curves() for name, metrics in probe.rungs.items()},
        "depth": _depth(probe),
        "matrices_per_head": probe.matrices.figures(),
        "matrix_controls": {
            **{name: matrices.beside(probe.matrices) for name, matrices in probe.control_matrices.items()},
            **{name: {"left_out": reason} for name, reason in impossible.items()},
        },
        "shares_per_layer": {
            name: None if own is None else [of_layer.tolist() for of_layer in own] for name, own in probe.shares.items()
        },
        "overlap_of_random": min(RANK, width) / width,
        "linear_factor_per_head": probe.factors.tolist(),
        "dropped": dict(probe.dropped),
        "demonstrations": demonstrations_record(probe),
        "finetune": finetune_record(probe),
        "fingerprints": fingerprints_record(plan, planned, probe),
        "versions": versions(),
    }


def _intervals(probe: WeightUpdateProbe) -> dict[str, dict[str, list[float] | None]]:
    """By condition and figure, [low, high]; None where nothing is known of the spread."""
    of_accuracy = accuracies(probe.predictions)
    return {
        name: {
            figure: _ends(bootstrapped)
            for figure, bootstrapped in {"accuracy": of_accuracy[f"accuracy.{name}"], **metrics.bootstrap()}.items()
        }
        for name, metrics in probe.rungs.items()
    }


def _ends(figure: Bootstrapped) -> list[float] | None:
    """Lower and upper end of the interval; None where one of them is unknown."""
    return figure.interval.tolist() if torch.isfinite(figure.interval).all() else None


def _depth(probe: WeightUpdateProbe) -> dict[str, Any] | None:
    """Which condition holds the rung in the layers up to each one, from each one on, and in each one alone."""
    rung, layers = probe.depth, probe.layers
    if rung is None:
        return None
    # All layers together are the rung itself, which has no name of a part.
    names = {part: part_name(rung, part) for part in parts_of(layers)} | {range(layers): rung}
    by_layer: Mapping[str, list[str]] = {
        "up_to": [names[range(layer + 1)] for layer in range(layers)],
        "from": [names[range(layer, layers)] for layer in range(layers)],
        "alone": [names[range(layer, layer + 1)] for layer in range(layers)],
    }
    return {"rung": rung, **by_layer}
