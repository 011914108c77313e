"""How far figures move when fine-tuning starts from weights that differ by no more than float32 rounding.

No control of the claim, but of the figures: a fine-tuning that magnifies rounding gives others on another processor.
"""

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from lightning_icl.comparison.controls._context import ControlContext
from lightning_icl.metrics.bootstrap import Bootstrapped
from lightning_icl.metrics.forms import flattened
from lightning_icl.models.kv import slices
from lightning_icl.probing.contrast import MAIN, Contrast
from lightning_icl.probing.findings import Prediction, accuracy
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import KVOverlay

NAME = "check-rounding"
STEP = 2.0**-23
"""Relative size of the change: the resolution of float32 in every type that holds it."""


def rounding_contrast(context: ControlContext) -> Contrast:
    """The main contrast with a fine-tuning from key/value parameters changed in their last digit.

    Raises:
        NumericalError: the loss diverged.
    """
    base = rounded_otherwise(context.model, context.seed)
    return context.with_finetuning(NAME, context.fit(context.demonstrations, base=base))


def rounded_otherwise(model: PreTrainedModel, seed: int) -> KVOverlay:
    """Key/value parameters multiplied by `1 + 2^-23 e`, `e` 1 or -1 as drawn by the seed, entry by entry.

    Args:
        model: with its own weights, float32 or better.
        seed: of the signs.
    """
    tensors = {}
    for part in slices(model):
        values = part.read()
        generator = torch.Generator().manual_seed(zlib.crc32(f"{part.name}/{seed}".encode()))
        # -1 or 1, from 0 or 1.
        signs = 2 * torch.randint(2, values.shape, generator=generator).to(values) - 1
        # Multiplied, so that each number moves in its own last digit.
        tensors[part.name] = values * (1 + STEP * signs)
    return KVOverlay(tensors=tensors)


def sensitivity(probe: ICLProbe) -> dict[str, float] | None:
    """By dotted name how far each figure, or the layer of a curve that moves most, is from that of the check.

    None where there was no check, or its fine-tuning was left out.
    """
    if not {MAIN, NAME} <= probe.comparisons.keys():
        return None
    main, check = probe.comparisons[MAIN], probe.comparisons[NAME]
    (condition,) = (contrast.ft.name for contrast in probe.contrasts if contrast.name == NAME)
    changes = {"accuracy.ft": abs(accuracy(probe.predictions, "ft") - accuracy(probe.predictions, condition))}
    for level in main._fields:
        figures, others = (flattened(getattr(comparison, level)._asdict()) for comparison in (main, check))
        # Counts and tables have no distance that could be compared.
        for key, value in figures.items():
            if isinstance(value, float) or key.endswith("per_layer"):
                changes[f"{level}.{key}"] = _largest(value, others[key])
    return changes


def without_check(
    probe: ICLProbe,
) -> tuple[dict[str, Mapping[str, Bootstrapped]], list[Prediction]]:
    """Replicates by contrast, and predictions, of what was measured for its own sake."""
    # What was only a check would otherwise be paired and tested like a control.
    bootstraps = {name: figures for name, figures in probe.bootstraps.items() if name != NAME}
    check = {contrast.ft.name for contrast in probe.contrasts if contrast.name == NAME}
    predictions = [
        replace(query, scores={name: scores for name, scores in query.scores.items() if name not in check})
        for query in probe.predictions
    ]
    return bootstraps, predictions


def _largest(one: Any, other: Any) -> float:
    """Largest absolute difference of what both have; NaN where nothing is."""
    difference = (torch.as_tensor(one, dtype=torch.float64) - torch.as_tensor(other, dtype=torch.float64)).abs()
    defined = difference[torch.isfinite(difference)]
    return float(defined.max()) if len(defined.reshape(-1)) else float("nan")
