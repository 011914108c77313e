"""Largest deviations between the program and the oracle, for one variant of one architecture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import oracle
import torch
from tiny_models import tiny_model
from tiny_task import tiny_data
from transformers import PreTrainedModel

from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import ProbeToken
from lightning_icl.models.architecture import architecture_of
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe

RATE = 0.05


def make_trainer(*callbacks: L.Callback, **settings: object) -> L.Trainer:
    chosen = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "callbacks": list(callbacks), **settings,
    }  # fmt: skip
    return L.Trainer(**chosen)


def windows_of(variant: str, layers: int) -> list[int | None]:
    """Window of each layer as the families document them, by the configurations of `tiny_models`."""
    return {
        "mistral-window": [20] * layers,
        "mistral-window-momentum": [20] * layers,
        "gemma2": [20, None, 20],
        "gemma3_text": [20, 20, 20],
        "cohere2": [20, 20, 20],
        "gpt_neo": [None, 20, None],
    }.get(variant, [None] * layers)


def deviations(
    variant: str,
    probe_token: ProbeToken,
    answers: str,
    folder: Path,
    *,
    rate: float = RATE,
    dtype: torch.dtype = torch.float32,
    reference: torch.dtype | None = None,
    changes: Mapping[str, object] | None = None,
    windows: Sequence[int | None] | None = None,
    **settings: Any,
) -> dict[str, float]:
    """By quantity, the largest absolute deviation over all layers, heads, queries and answers.

    The program measures in `dtype`, the oracle in `reference`, the same type unless it is given; `changes` and
    `settings` are those of the model and of the data beside the usual ones.
    """
    model = tiny_model(variant, **(changes or {})).to(dtype)
    if variant == "falcon-alibi":  # the eager path of transformers adds the bias twice; its SDPA path is right
        model.config._attn_implementation = "sdpa"
    data = tiny_data(folder, answers, probe_token=probe_token, **settings)
    return deviations_of(model, data, rate, windows or windows_of(variant, model.config.num_hidden_layers), reference)


def deviations_of(
    model: PreTrainedModel,
    data: ICLDataModule,
    rate: float,
    windows: Sequence[int | None],
    reference: torch.dtype | None = None,
) -> dict[str, float]:
    """The same for any model on any data."""
    dtype = model.dtype
    probe = ICLProbe(model, data.demonstrations)
    trainer = make_trainer(KVFinetuning(rate), precision="64-true" if dtype == torch.float64 else "32-true")
    trainer.fit(probe, datamodule=data)
    trainer.validate(probe, datamodule=data, verbose=False)
    queries = sorted(data.queries, key=lambda query: query.index)
    expected = oracle.measure(model.to(reference or dtype), data.demonstrations, queries, rate, windows)
    return compare(probe, expected)


def unmoved_layers(probe: ICLProbe) -> list[int]:
    """Layers whose scores among the own tokens cannot depend on the prompt: the first, where positions are relative."""
    return [] if architecture_of(probe.model.config).absolute_positions else [0]


def compare(probe: ICLProbe, expected: dict[str, np.ndarray]) -> dict[str, float]:
    assert probe.comparison is not None
    assert probe.finetuned is not None
    _, aou, am, kendall = probe.comparison
    unmoved = unmoved_layers(probe)
    for name in ("am_difference", "am_softmax_difference"):
        expected[name][:, unmoved] = np.nan
    most = expected["answer_scores"].shape[-1]
    measured = {
        "answer_scores": np.array(
            [[oracle.padded(p.scores[name], most) for name in ("zsl", "icl", "ft")] for p in probe.predictions]
        ),
        "losses": np.array(probe.finetuned.losses),
        "update_norms": np.array(probe.finetuned.update_norms),
        "aou": aou.normalised.per_layer,
        "aou_raw": aou.raw.per_layer,
        "aou_random": aou.random.per_layer,
        "aou_random_uniform": aou.random_uniform.per_layer,
        "am": am.scores.per_head,
        "am_zsl": am.zsl.per_head,
        "am_difference": am.difference.per_head,
        "am_softmax": am.softmax.per_head,
        "am_softmax_zsl": am.softmax_zsl.per_head,
        "am_softmax_difference": am.softmax_difference.per_head,
        "kendall": kendall.tokens.per_layer,
        "kendall_example": kendall.example.per_layer,
        "visible": kendall.visible.per_layer,
    }
    whole = ("answer_scores", "losses", "update_norms")
    found = {}
    for name, value in measured.items():
        reference = expected[name] if name in whole else mean_over_queries(expected[name])
        value = value.numpy() if torch.is_tensor(value) else value
        assert (np.isnan(value) == np.isnan(reference)).all(), f"{name}: {value} {reference}"
        found[name] = float(np.nanmax(np.abs(value - reference))) if not np.isnan(value).all() else 0.0
    return found


def mean_over_queries(values: np.ndarray) -> np.ndarray:
    """Mean of what is defined; NaN where nothing is."""
    count = (~np.isnan(values)).sum(0)
    return np.where(count > 0, np.nansum(values, 0) / np.maximum(count, 1), np.nan)
