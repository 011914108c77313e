"""Differences between kinds of attention: intervals over seeds, over blocks and queries, and what is said of them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from experiments.momentum.difference_sentences import difference_sentences
from experiments.momentum.differences import (
    Gap,
    difference_table,
    differences,
    drawn_accuracy,
    drawn_perplexity,
    interval_over_seeds,
)
from experiments.momentum.settings import ExperimentSettings
from lightning_icl.metrics.bootstrap import poisson_weights

SETTINGS = ExperimentSettings(
    pretrain={}, text="a", validation_text="b", lengths=(8,), seeds=(1, 2, 3), sweep_seeds=(1,),
    arms={"previous": {"momentum_form": "previous"}, "mean": {"momentum": 0.5, "momentum_form": "mean"}},
)  # fmt: skip


def model(seed: int, better: float = 0.0, blocks: int = 40) -> dict[str, Any]:
    """What was measured on a model: losses of a seed's blocks, all less by the same."""
    # The hardness of a block is its own; a model's seed adds little to it.
    hardness = np.random.default_rng(0).normal(3.0, 0.5, blocks)
    losses = hardness + np.random.default_rng(seed).normal(0.0, 0.02, blocks) - better
    right = np.random.default_rng(seed).random((2, 50)) < 0.5 + better
    accuracy = {f"task{row}": {"icl": float(one.mean()), "icl_right": one.tolist()} for row, one in enumerate(right)}
    return {
        "train_perplexity": 1.0,
        "perplexity": {"8": math.exp(losses.mean())},
        "block_loss": losses.tolist(),
        "accuracy": accuracy,
    }


def test_an_interval_over_seeds_is_that_of_scipys_paired_t_test() -> None:
    one, other = [3.0, 5.0, 4.5], [2.5, 4.9, 4.1]
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert interval_over_seeds(np.subtract(one, other).tolist()) == pytest.approx((expected.low, expected.high))


def test_replicates_of_perplexity_and_accuracy_are_those_of_plain_loops() -> None:
    found = model(1)
    drawn, weights = drawn_perplexity(found), poisson_weights(torch.arange(40)).numpy()
    for row in (0, 17, 999):
        repeated = np.repeat(found["block_loss"], weights[:, row].astype(int))
        assert float(drawn.replicates[row]) == pytest.approx(math.exp(repeated.mean()))
    assert float(drawn.estimate) == pytest.approx(found["perplexity"]["8"])

    drawn, weights = drawn_accuracy(found), poisson_weights(torch.arange(100)).numpy()
    tasks = [task["icl_right"] for task in found["accuracy"].values()]
    for row in (0, 17, 999):
        counts = weights[:, row].astype(int)
        shares = [np.repeat(tasks[0], counts[:50]).mean(), np.repeat(tasks[1], counts[50:]).mean()]
        assert float(drawn.replicates[row]) == pytest.approx(100 * np.mean(shares))
    assert float(drawn.estimate) == pytest.approx(100 * np.mean(tasks))


def test_seeds_are_compared_where_two_or_more_are_shared_and_blocks_where_one_is() -> None:
    measured = {
        "vanilla": {seed: model(seed) for seed in (1, 2, 3)},
        "eta-0.9": {seed: model(10 + seed, -0.3) for seed in (1, 2, 3)},
        "previous": {1: model(21, 0.1)},
        "mean": {1: model(31, 0.1)},
    }
    gaps = {(gap.attention, gap.against, gap.figure): gap for gap in differences(SETTINGS, measured)}
    assert {pair[:2] for pair in gaps} == {
        *(("eta-0.9", "vanilla"), ("previous", "vanilla"), ("mean", "vanilla")),
        *(("vanilla", "previous"), ("eta-0.9", "previous"), ("mean", "previous")),
    }
    seeds = gaps["eta-0.9", "vanilla", "perplexity 8"]
    assert seeds.seeds == (1, 2, 3)
    assert seeds.low > 0
    plain, momentum = (
        [found["perplexity"]["8"] for found in measured[name].values()] for name in ("vanilla", "eta-0.9")
    )
    values = np.subtract(momentum, plain).tolist()
    assert (seeds.low, seeds.high) == interval_over_seeds(values)
    blocks = gaps["mean", "vanilla", "perplexity 8"]
    assert blocks.seeds == (1,)
    assert blocks.high < 0
    same = gaps["mean", "previous", "perplexity 8"]
    assert same.low < 0 < same.high
    # Blocks differ far more than models do, which pairing takes away.
    spread = float(drawn_perplexity(measured["mean"][1]).interval.diff())
    assert same.high - same.low < spread / 10


def test_one_block_gives_no_interval() -> None:
    measured = {name: {1: model(seed, blocks=1)} for seed, name in enumerate(("vanilla", "previous", "mean"))}
    gap = next(gap for gap in differences(SETTINGS, measured) if gap.figure == "perplexity 8")
    assert math.isnan(gap.low)
    assert not gap.excludes_zero


def test_words_say_for_which_the_interval_excludes_zero_whichever_way() -> None:
    gaps = [
        Gap("sum", "vanilla", "perplexity 8", 250.0, 240.0, 260.0, (1, 2)),
        Gap("mean", "vanilla", "perplexity 8", -1.5, -2.0, -1.0, (1,)),
        Gap("gate", "vanilla", "perplexity 8", 0.2, -0.1, 0.5, (1,)),
        Gap("odd", "vanilla", "perplexity 8", 0.2, math.nan, math.nan, (1,)),
        Gap("mean", "previous", "ICL mean", 0.0, -1.0, 1.0, (1, 2)),
    ]
    first, second, seeds, number = difference_sentences(gaps)
    assert first == (
        "Perplexity 8 against vanilla: the interval excludes 0 for sum (+250.00), mean (-1.50); "
        "it holds 0 for gate; there is none for odd."
    )
    assert second == "ICL mean against previous: the interval excludes 0 for none; it holds 0 for mean."
    assert seeds.startswith("Against vanilla one seed alone is shared by mean, gate, odd: no interval over seeds")
    assert "(5)" in number
    _, (header, *lines) = difference_table(gaps[:2])
    assert header[-1] == "interval over"
    assert [line[-1] for line in lines] == ["2 seeds", "text and queries, seed 1"]
    assert lines[0][2] == "+250.00 [+240.00, +260.00]"
