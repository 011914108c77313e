"""Controls carried out on tiny models, and their figures beside those of the slow computation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import torch
from exactness import RATE, make_trainer, mean_over_queries, unmoved_layers
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.comparison.controls.catalogue import choose, own_rates
from lightning_icl.comparison.controls.run import make_controls
from lightning_icl.comparison.plan import PlannedTask
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import Query
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe


def carry_out(
    variant: str, names: str, folder: Path, answers: str = "single", rates: str = ""
) -> tuple[ICLProbe, ICLDataModule, dict[str, Contrast]]:
    """The probe after validation, the data, and the contrasts by name."""
    data = tiny_data(folder, answers)
    probe = ICLProbe(tiny_model(variant), data.demonstrations)
    make_trainer(KVFinetuning(RATE)).fit(probe, datamodule=data)
    (folder / "other").mkdir()
    neighbour = tiny_data(folder / "other", "multi", seed=5).demonstrations
    planned = PlannedTask(name="tiny", task=data.task, data=data, learning_rate=RATE, neighbour=neighbour)
    controls = choose(names)
    made = make_controls(
        CompareSettings(model="tiny", accelerator="cpu"), planned, probe, controls, own_rates(rates, controls)
    )
    assert not made.impossible
    make_trainer().validate(probe, datamodule=data, verbose=False)
    return probe, data, {contrast.name: contrast for contrast in probe.contrasts}


def ordered(data: ICLDataModule) -> list[Query]:
    """Queries in data order, as predictions are."""
    return sorted(data.queries, key=lambda query: query.index)


def deviations(
    probe: ICLProbe, contrast: Contrast, expected: dict[str, np.ndarray], skip: Sequence[str] = ()
) -> dict[str, float]:
    """Largest absolute deviation of one contrast from the slow computation, by quantity."""
    recall, aou, am, kendall = probe.comparisons[contrast.name]
    names = [condition.name for condition in contrast.conditions]
    expected["am_difference"][:, unmoved_layers(probe)] = np.nan
    found = {
        "answer_scores": np.array([[prediction.scores[name] for name in names] for prediction in probe.predictions]),
        "aou": aou.normalised.per_layer,
        "aou_raw": aou.raw.per_layer,
        "am": am.scores.per_head,
        "am_zsl": am.zsl.per_head,
        "am_difference": am.difference.per_head,
        "kendall": kendall.tokens.per_layer,
    }
    largest = {"right_table": float((recall.right_table - right_table(probe, expected["answer_scores"])).abs().max())}
    for name in found.keys() - set(skip):
        value = found[name]
        reference = expected[name] if name == "answer_scores" else mean_over_queries(expected[name])
        value = value.numpy() if torch.is_tensor(value) else value
        assert (np.isnan(value) == np.isnan(reference)).all(), f"{name}: {value} {reference}"
        largest[name] = float(np.nanmax(np.abs(value - reference)))
    return largest


def right_table(probe: ICLProbe, scores: np.ndarray) -> torch.Tensor:
    """How many queries each combination of the three conditions gets right, from scores (query, condition, answer)."""
    table = torch.zeros(2, 2, 2, dtype=torch.int64)
    for prediction, views in zip(probe.predictions, scores, strict=True):
        table[tuple(int(view.argmax() == prediction.gold) for view in views)] += 1
    return table


def lettered(queries: Sequence[Query], ids: Sequence[int]) -> list[Query]:
    """Queries that choose among other one-token answers."""
    return [replace(query, answers=tuple((token,) for token in ids)) for query in queries]


def slow(probe: ICLProbe, contrast: Contrast, queries: Sequence[Query], **changes: object) -> dict[str, np.ndarray]:
    """The slow computation of a contrast: its demonstrations, in the prompt and learnt."""
    model = changes.pop("model", probe.model)
    windows = [None] * model.config.num_hidden_layers
    return oracle.measure(model, contrast.demonstrations, queries, RATE, windows, **changes)
