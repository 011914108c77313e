"""Closeness of two views' predictions against scipy and loops; batches, replicates and degenerate queries."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import pearsonr

from lightning_icl.metrics.bootstrap import poisson_weights
from lightning_icl.metrics.closeness import Closeness

QUERIES, ANSWERS, TOKENS = 12, 3, 17
DRAW = torch.Generator().manual_seed(0)
ONE, OTHER = (torch.randn(QUERIES, ANSWERS, generator=DRAW, dtype=torch.float64) - 3 for _ in range(2))
LOGITS, OTHER_LOGITS = (torch.randn(QUERIES, TOKENS, generator=DRAW, dtype=torch.float64) for _ in range(2))
IDS = torch.arange(QUERIES)


def by_hand(rows: list[int]) -> dict[str, float]:
    one, other = ONE[rows].numpy(), OTHER[rows].numpy()
    kl = lambda a, b: float(np.mean([rel_entr(softmax(x), softmax(y)).sum() for x, y in zip(a, b, strict=True)]))  # noqa: E731
    correlations = []
    for answer in range(ANSWERS):
        rest = [column for column in range(ANSWERS) if column != answer]
        margin = [view[:, answer] - view[:, rest].mean(1) for view in (one, other)]
        correlations.append(pearsonr(*margin).statistic)
    return {
        "agreement": float((one.argmax(1) == other.argmax(1)).mean()),
        "kl": kl(LOGITS[rows].numpy(), OTHER_LOGITS[rows].numpy()),
        "answer_kl": kl(one, other),
        "margin_correlation": float(np.mean(correlations)),
    }


def measured(metric: Closeness, size: int) -> Closeness:
    for start in range(0, QUERIES, size):
        rows = slice(start, start + size)
        metric.update(ONE[rows], OTHER[rows], LOGITS[rows], OTHER_LOGITS[rows], IDS[rows])
    return metric


@pytest.mark.parametrize("size", [1, 5, QUERIES])
def test_figures_are_those_of_scipy_whatever_the_batches(size: int) -> None:
    assert measured(Closeness(ANSWERS), size).details()._asdict() == pytest.approx(by_hand(list(range(QUERIES))))


def test_a_replicate_is_the_figure_of_the_queries_it_drew() -> None:
    figures = measured(Closeness(ANSWERS, replicates=20), 5).bootstrap()
    counts = poisson_weights(IDS, 20).long()
    for replicate in (0, 7, 19):
        rows = [row for row in range(QUERIES) for _ in range(int(counts[row, replicate]))]
        for name, value in by_hand(rows).items():
            assert float(figures[name].replicates[replicate]) == pytest.approx(value), name
    for figure in figures.values():
        assert figure.interval[0] <= figure.estimate <= figure.interval[1]


def test_a_view_is_at_no_distance_from_itself() -> None:
    metric = Closeness(ANSWERS)
    metric.update(ONE, ONE, LOGITS, LOGITS)
    assert metric.details()._asdict() == pytest.approx(
        {"agreement": 1.0, "kl": 0.0, "answer_kl": 0.0, "margin_correlation": 1.0}
    )


def test_answers_that_a_query_lacks_have_no_part() -> None:
    one, other, absent = ONE[:5, :2], OTHER[:5, :2], torch.full((5, 1), -math.inf, dtype=torch.float64)
    two, three = Closeness(2), Closeness(3)
    two.update(one, other, LOGITS[:5], LOGITS[:5])
    three.update(torch.cat([one, absent], 1), torch.cat([other, absent], 1), LOGITS[:5], LOGITS[:5])
    assert three.details()._asdict() == pytest.approx(two.details()._asdict())


def test_margins_that_do_not_vary_have_no_correlation() -> None:
    metric = Closeness(ANSWERS, replicates=4)
    metric.update(ONE[:1].expand(5, -1), OTHER[:5], LOGITS[:5], LOGITS[:5], IDS[:5])
    assert math.isnan(metric.details().margin_correlation)
    assert torch.isnan(metric.bootstrap()["margin_correlation"].interval).all()
