"""What a validated probe has found, once and for all processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from lightning_icl.metrics.bootstrap import Bootstrapped
from lightning_icl.probing.contrast import Comparison
from lightning_icl.records import QueryBatch


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What every condition says of one query."""

    index: int
    """Row number in the data file."""
    gold: int
    """Number of the right answer."""
    scores: dict[str, list[float]]
    """By condition, the mean log-probability of each answer."""


def predictions_of(batch: QueryBatch, scores: Mapping[str, Tensor]) -> list[Prediction]:
    """What the conditions say of each query of a batch, in the batch's order.

    Args:
        batch: the queries.
        scores: by condition (query, answer).
    """
    rows_of = {name: of_batch.tolist() for name, of_batch in scores.items()}
    queries = zip(batch.query_ids.tolist(), batch.gold.tolist(), batch.answer_counts.tolist(), strict=True)
    return [
        # Scores of answers that this query lacks are padding.
        Prediction(index=index, gold=gold, scores={name: rows[number][:answers] for name, rows in rows_of.items()})
        for number, (index, gold, answers) in enumerate(queries)
    ]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that one pass over the queries has shown."""

    predictions: Sequence[Prediction] = ()
    """Of every query, in data order."""
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    """Of every contrast, by name."""
    bootstraps: Mapping[str, Mapping[str, Bootstrapped]] = field(default_factory=dict)
    """By contrast, the figures' replicates and intervals."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Names of conditions left out, with the reason."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time of the prefixes, of the queries, and of Kendall in them."""


def accuracy(predictions: Sequence[Prediction], condition: str) -> float:
    """Share of queries whose best-scored answer is gold; NaN for no queries."""
    right = [best_answer(prediction.scores[condition]) == prediction.gold for prediction in predictions]
    return sum(right) / len(right) if right else float("nan")


def best_answer(scores: Sequence[float]) -> int:
    """The first of the best answers."""
    # `max` keeps the first of equals, as `argmax` does on tensors.
    return max(range(len(scores)), key=scores.__getitem__)
