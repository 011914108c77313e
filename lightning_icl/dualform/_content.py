"""From a validated `DualProbe` to the content of `dual_form.json` (schema 1)."""

from typing import Any

from lightning_icl.comparison.assemble import versions
from lightning_icl.comparison.plan import Plan, PlannedTask
from lightning_icl.dualform._figures import BY_LAYER, BY_MATRIX, BY_QUERY_HEAD
from lightning_icl.dualform._probe import DualProbe
from lightning_icl.models.architecture import has_alibi, has_soft_cap, head_counts
from lightning_icl.results import SCHEMA


def dual_content(plan: Plan, planned: PlannedTask, probe: DualProbe) -> dict[str, Any]:
    """Everything shown, and what it was made of; NaN marks what is undefined."""
    heads, kv_heads, width = head_counts(probe.model.config)
    figures = probe.figures
    tuned = probe.finetuned
    assert tuned is not None
    per_head = ("identity_error", *BY_QUERY_HEAD, *BY_MATRIX)
    return {
        "schema": SCHEMA,
        "kind": "dual_form",
        "model": {
            "name": plan.subject.source.name,
            "architecture": str(probe.model.config.model_type),
            "heads": heads,
            "kv_heads": kv_heads,
            "head_width": width,
            "dtype": str(probe.model.dtype).removeprefix("torch."),
            "left_out": left_out(probe),
        },
        "task": {"name": planned.task.name, "template": planned.data.template, "rows": planned.data.origin},
        "layers": list(probe.layers),
        "queries": {"count": probe.queries},
        "finetune": {"lr": tuned.learning_rate, "steps": len(tuned.losses), "loss": list(tuned.losses)},
        "subspace_rank": probe.rank,
        "subspace_overlap_of_random": probe.rank / width,
        # Query heads or key/value heads: whichever a figure has, the mean over them is what a layer shows.
        "per_layer": {name: _layers(figures[name].flatten(1).nanmean(1)) for name in per_head}
        | {name: figures[name].tolist() for name in (*BY_LAYER, "patch_identity_error")},
        "per_head": {name: figures[name].tolist() for name in per_head},
        "principal_angles_degrees": {side: figures[f"{side}_angles"].tolist() for side in ("left", "right")},
        "fingerprints": plan.fingerprints(planned),
        "demonstrations": _demonstrations(plan, planned, probe),
        "versions": versions(),
    }


def _layers(values: Any) -> list[float]:
    return [float(value) for value in values]


def left_out(probe: DualProbe) -> list[str]:
    """What of this model's attention a linear form cannot hold."""
    config = probe.model.config
    parts = []
    if has_soft_cap(config):
        parts.append("the soft cap on scores")
    if has_alibi(config):
        parts.append("the position bias on scores (ALiBi)")
    if getattr(config, "momentum_attention", None):
        parts.append("the moving average of values (momentum attention), taken off the head's output too,")
    return parts


def _demonstrations(plan: Plan, planned: PlannedTask, probe: DualProbe) -> list[dict[str, Any]]:
    """Each demonstration: its text, and its share in ΔW_ICL, averaged over heads, by layer and over all."""
    chosen = probe.demonstrations
    projection = probe.figures["share_projection"].nanmean(1)
    norm = probe.figures["share_norm"].nanmean(1)
    return [
        {
            "number": number,
            "row": chosen.indices[number],
            "label": planned.task.answers[chosen.labels[number]],
            "tokens": len(tokens),
            "text": str(plan.subject.tokenizer.decode(list(tokens))).strip(),
            "share": float(projection[:, number].nanmean()),
            "relative_norm": float(norm[:, number].nanmean()),
            "share_per_layer": _layers(projection[:, number]),
            "relative_norm_per_layer": _layers(norm[:, number]),
        }
        for number, tokens in enumerate(chosen.examples)
    ]
