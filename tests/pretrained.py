"""Parity on pretrained models: the program in float64 against the oracle, on real rows or generated ones."""

from pathlib import Path

import torch
from exactness import deviations_of

from lightning_icl.data.module import ICLDataModule
from lightning_icl.models.architecture import context_length
from lightning_icl.models.finding import find_model
from lightning_icl.models.loading import load_model, load_tokenizer
from lightning_icl.tasks.catalogue import resolve_tasks


def pretrained_deviations(
    name: str, task: str, data: Path | None, *, shots: int, limit: int, rate: float = 1e-3
) -> tuple[int, dict[str, float]]:
    """Tokens of the prompt, and by quantity the largest absolute deviation.

    Args:
        name: of the model.
        task: name of the task.
        data: folder of its rows; None for generated ones.
        shots: demonstrations.
        limit: queries.
        rate: of fine-tuning.
    """
    source = find_model(name)
    model, tokenizer = load_model(source, torch.float64), load_tokenizer(source)
    model.set_attn_implementation("eager")
    module = ICLDataModule(
        resolve_tasks(task)[task],
        tokenizer,
        context_length=context_length(model.config),
        data=data,
        shots=shots,
        limit=limit,
    )
    kinds = getattr(model.config, "layer_types", None) or ["full_attention"] * model.config.num_hidden_layers
    windows = [model.config.sliding_window if kind == "sliding_attention" else None for kind in kinds]
    return len(module.demonstrations.prefix_token_ids), deviations_of(model, module, rate, windows)
