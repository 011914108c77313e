"""Learning rate, batch and warm-up of each kind of attention, by the same small search for all.

One setting after the other, in the order of the file: its values are tried with the others as chosen so far, and the
one of the lowest loss on held-out text stays. The trainings are a share of the whole ones and have a seed of their own.
What is tried is kept and not trained again, so an interrupted search goes on by the same command.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from experiments.momentum.cache import train_once
from experiments.momentum.settings import SEARCHED, ExperimentSettings, Variant
from experiments.momentum.summary import titled
from lightning_icl.errors import UserError
from lightning_icl.pretraining.text import Text, find_text
from lightning_icl.results import to_json
from lightning_icl.saving.workspace import write_text

Values = Mapping[str, float]
"""Learning rate, batch and warm-up."""
SEARCH = "search.json"


class Found(NamedTuple):
    """What a search has found for one kind of attention."""

    chosen: Values
    tried: Sequence[tuple[Values, float]]
    """Every combination that was tried, with its loss in nats per token."""


def choose(grid: Mapping[str, Sequence[float]], start: Values, loss: Callable[[Values], float]) -> Found:
    """Go through the settings one after the other and keep the best value of each; the first of equals.

    Args:
        grid: values to try, by setting.
        start: all settings at the beginning.
        loss: of a combination; NaN is worse than any number.
    """
    chosen, tried = dict(start), list[tuple[Values, float]]()
    for name, values in grid.items():
        points = [{**chosen, name: value} for value in values]
        for point in points:
            if point not in [one for one, _ in tried]:
                tried.append((point, loss(point)))
        losses = [next(value for one, value in tried if one == point) for point in points]
        chosen = points[min(range(len(points)), key=lambda row: math.inf if math.isnan(losses[row]) else losses[row])]
    return Found(chosen, tried)


def search(settings: ExperimentSettings, variant: Variant, out: Path) -> Found:
    """What a kind of attention is to be trained with.

    Args:
        settings: of the experiment.
        variant: the kind of attention.
        out: the experiment's folder.

    Raises:
        UserError: something that a training cannot use, or a training of other settings is in the way.
    """
    return choose(settings.search, settings.shared_values(), partial(_loss, settings, variant, out=out))


def keep_search(settings: ExperimentSettings, found: Mapping[str, Found], out: Path) -> None:
    """Write everything that was tried into `search.json`, where there was a search.

    Args:
        settings: of the experiment.
        found: by kind of attention.
        out: the experiment's folder.
    """
    if found:
        write_text(out / SEARCH, to_json(_record(settings, found)))


def _loss(settings: ExperimentSettings, variant: Variant, values: Values, out: Path) -> float:
    """Loss on the held-out text at the end of the short training, which is made unless it was made before."""
    training = settings.search_training(variant, values, out)
    train_once(training)
    rows = csv.DictReader((Path(training.out) / "training_log.csv").read_text(encoding="utf-8").splitlines())
    return [float(row["validation_loss"]) for row in rows if row["validation_loss"]][-1]


def _record(settings: ExperimentSettings, found: Mapping[str, Found]) -> dict[str, Any]:
    return {
        "grid": settings.search,
        "share_of_steps": settings.search_share,
        "judged_on": settings.search_text,
        "arms": {
            name: {"chosen": one.chosen, "tried": [{**values, "loss": loss} for values, loss in one.tried]}
            for name, one in found.items()
        },
    }


def search_table(settings: ExperimentSettings, found: Mapping[str, Found]) -> tuple[Table, list[list[str]]]:
    """What was chosen for each kind of attention, its loss, and every loss that it was chosen by."""
    lines = []
    for name, (chosen, tried) in found.items():
        best = next(loss for values, loss in tried if values == chosen)
        others = ", ".join(f"{_short(values)} {loss:.3f}" for values, loss in tried)
        edge = ", ".join(at_edge(settings.search, chosen))
        lines.append([name, *(f"{chosen[key]:g}" for key in SEARCHED), f"{best:.3f}", others, edge])
    header = ["attention", *(name.replace("_", " ") for name in SEARCHED), "loss", "tried", "at the edge"]
    steps = f"{100 * settings.search_share:g}% of the steps"
    return titled(f"Search, the same for all ({steps}; loss of {settings.search_text})", header, lines)


def _short(values: Values) -> str:
    return "/".join(f"{values[name]:g}" for name in SEARCHED)


def at_edge(grid: Mapping[str, Sequence[float]], chosen: Values) -> list[str]:
    """Settings of three values or more whose choice is the least or the greatest of them.

    >>> at_edge({"learning_rate": [0.001, 0.002, 0.004], "batch": [4, 8]}, {"learning_rate": 0.004, "batch": 4})
    ['learning_rate']
    """
    return [name for name, values in grid.items() if len(values) > 2 and chosen[name] in (min(values), max(values))]


def check_texts(settings: ExperimentSettings) -> None:
    """Make sure that no text serves twice: to train on, to choose by, and to report.

    Raises:
        UserError: naming both settings and what they share.
    """
    asked = {"text": settings.text, "search_text": settings.search_text, "validation_text": settings.validation_text}
    texts = {
        name: _parts(find_text(value, name, split="train" if name == "text" else "validation"))
        for name, value in asked.items()
        if value
    }
    for name, other in (("text", "validation_text"), ("search_text", "text"), ("search_text", "validation_text")):
        if shared := texts.get(name, set()) & texts[other]:
            raise UserError(f"{name} and {other} both hold {min(shared)}: give texts that share nothing.")


def _parts(text: Text) -> set[str]:
    return set(text.record) if text.hub is not None else {str(path.resolve()) for path in text.files}
