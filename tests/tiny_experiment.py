"""The momentum experiment in seconds: models of one layer on text of numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.momentum.settings import ExperimentSettings

SHAPE = {"layers": 1, "width": 16, "heads": 2, "context": 512, "vocabulary": 300}
TRAINING = {
    "block": 32, "short_block": 32, "short_steps": 0, "batch": 2, "steps": 4, "checkpoint_every": 2,
    "accelerator": "cpu", "text_share": 0.5,
}  # fmt: skip


def tiny_experiment(folder: Path, *, training: Mapping[str, Any], **changes: Any) -> ExperimentSettings:
    """Plain and momentum attention, four steps of 64 tokens each.

    Args:
        folder: where the three texts are written.
        training: settings of the trainings that differ from `TRAINING`.
        changes: further settings of the experiment.
    """
    for place, name in enumerate(("text", "validation_text", "search_text")):
        (folder / f"{name}.txt").write_text(" ".join(f"w{5 + (place + n * 7) % 80}" for n in range(400)))
    return ExperimentSettings(
        pretrain={**SHAPE, **TRAINING, **training},
        **{name: str(folder / f"{name}.txt") for name in ("text", "validation_text", "search_text")},
        seeds=(1,),
        lengths=(16, 32),
        perplexity_tokens=256,
        tasks="tiny-sst2",
        shots=2,
        limit=4,
        accelerator="cpu",
        **changes,
    )
