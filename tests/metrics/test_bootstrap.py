"""The bootstrap against a slow loop, known distributions, known truths, and other divisions of the same queries."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchmetrics import Metric

from lightning_icl.metrics import Kendall, Rec2FTP, SimAM, SimAOU
from lightning_icl.metrics.bootstrap import (
    Bootstrapped,
    bootstrapped_accuracies,
    bootstrapped_share,
    paired_difference,
    paired_differences,
    percentile_interval,
    poisson_weights,
    uniform_bits,
    wilson_interval,
)
from lightning_icl.metrics.forms import flattened

QUERIES, LAYERS, HEADS, TOKENS, REPLICATES = 13, 2, 3, 5, 40
TOKEN_EXAMPLE = (-1, 0, 0, 1, 1, -1)
IDS = torch.tensor([4, 0, 9, 17, 2, 30, 31, 32, 5, 1000, 7, 8, 12])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def metric_and_data(name: str, replicates: int = REPLICATES) -> tuple[Metric, tuple[torch.Tensor, ...]]:
    if name == "rec2ftp":
        answers = [draw(QUERIES, 2, seed=seed) for seed in range(3)]
        return Rec2FTP(replicates=replicates), (*answers, torch.arange(QUERIES) % 2, IDS)
    if name == "sim_aou":
        outputs = [draw(QUERIES, LAYERS, 8, seed=seed) for seed in range(3)]
        outputs[2][3, 0] = outputs[0][3, 0]  # an update of zero, so undefined
        return SimAOU(LAYERS, replicates=replicates), (*outputs, IDS)
    if name == "sim_am":
        maps = [draw(QUERIES, LAYERS, HEADS, TOKENS, seed=seed) for seed in range(3)]
        lengths = torch.full((QUERIES,), TOKENS)
        return SimAM(LAYERS, HEADS, unmoved_layers=(0,), replicates=replicates), (*maps, lengths, IDS)
    scores = [draw(QUERIES, LAYERS, len(TOKEN_EXAMPLE), seed=seed) for seed in range(2)]
    return Kendall(TOKEN_EXAMPLE, LAYERS, replicates=replicates, top_tokens=2, top_examples=1), (*scores, IDS)


NAMES = ["rec2ftp", "sim_aou", "sim_am", "kendall"]


def test_uniform_numbers_are_uniform_and_independent_across_queries_and_columns() -> None:
    uniforms = uniform_bits(torch.arange(1000), 500).double() / 2**53
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    counts = torch.histc(uniforms, 64, 0, 1)
    assert stats.chisquare(counts.numpy()).pvalue > 0.001
    assert stats.kstest(uniforms[:, 7].numpy(), "uniform").pvalue > 0.001
    assert stats.kstest(uniforms[7].numpy(), "uniform").pvalue > 0.001
    standard = (uniforms - 0.5) * math.sqrt(12)
    for one, other in ((standard[:-1], standard[1:]), (standard[:, :-1], standard[:, 1:])):
        assert abs(float((one * other).mean())) < 4 / math.sqrt(one.numel())


def test_every_bit_is_fair() -> None:
    bits = (uniform_bits(torch.arange(400), 500)[..., None] >> torch.arange(53)) & 1
    assert (bits.double().mean((0, 1)) - 0.5).abs().max() < 4.5 * 0.5 / math.sqrt(200_000)


def test_hash_equals_splitmix64_in_python_integers() -> None:
    mask, gamma = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mixed(state: int) -> int:
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        return state ^ (state >> 31)

    # The reference generator seeded with 0 starts with this number.
    assert mixed(gamma) == 0xE220A8397B1DCDAF
    for query, column, seed in ((0, 0, 0), (3, 5, 0), (10**6, 999, 7)):
        stream = mixed((mixed(((query + 1) * gamma) & mask) + seed) & mask)
        expected = mixed((stream + (column + 1) * gamma) & mask) >> 11
        assert int(uniform_bits(torch.tensor([query]), column + 1, seed=seed)[0, column]) == expected


def test_weights_have_the_poisson_distribution() -> None:
    weights = poisson_weights(torch.arange(2000), 500)
    assert float(weights.mean()) == pytest.approx(1.0, abs=4 / math.sqrt(weights.numel()))
    assert float(weights.var()) == pytest.approx(1.0, abs=0.01)
    counts = torch.bincount(weights.long().flatten(), minlength=7)
    observed = np.append(counts[:6], counts[6:].sum())
    expected = np.append(stats.poisson.pmf(range(6), 1), stats.poisson.sf(5, 1)) * weights.numel()
    assert stats.chisquare(observed, expected).pvalue > 0.001


def test_weights_depend_on_seed_and_query_alone() -> None:
    whole = poisson_weights(IDS, 1000)
    parts = torch.cat([poisson_weights(IDS[:1], 1000), poisson_weights(IDS[1:6], 1000), poisson_weights(IDS[6:], 1000)])
    assert torch.equal(whole, parts)
    assert torch.equal(whole[[5, 2]], poisson_weights(IDS[[5, 2]], 1000))
    assert torch.equal(whole[:, :10], poisson_weights(IDS, 10))
    assert not torch.equal(whole, poisson_weights(IDS, 1000, seed=1))


@pytest.mark.parametrize("name", NAMES)
def test_replicates_equal_a_metric_that_sees_each_query_as_often(name: str) -> None:
    metric, data = metric_and_data(name)
    metric.update(*data)
    found = metric.bootstrap()
    weights = poisson_weights(IDS, REPLICATES).long()
    loop: dict[str, list[torch.Tensor]] = {key: [] for key in found}
    for replicate in range(REPLICATES):
        repeated, _ = metric_and_data(name, replicates=0)
        rows = torch.arange(QUERIES).repeat_interleave(weights[:, replicate])
        repeated.update(*(tensor[rows] for tensor in data))
        result = flattened(repeated.details()._asdict())
        for key in found:
            loop[key].append(torch.as_tensor(result[key], dtype=torch.float64))
    for key, figure in found.items():
        slow = torch.stack(loop[key])
        torch.testing.assert_close(figure.replicates, slow, equal_nan=True, rtol=0, atol=1e-6)
        if name != "rec2ftp" and not slow.isnan().any():
            ends = np.percentile(slow.numpy(), [2.5, 97.5], axis=0)
            np.testing.assert_allclose(figure.interval.numpy(), ends, atol=1e-6)
        estimate = flattened(metric.details()._asdict())[key]
        np.testing.assert_allclose(figure.estimate.numpy(), np.asarray(estimate), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_batches_and_processes_change_nothing(name: str) -> None:
    whole, data = metric_and_data(name)
    whole.update(*data)
    shares = [metric_and_data(name)[0] for _ in range(3)]
    for rows in ([0], [7, 3, 1]):
        shares[0].update(*(tensor[rows] for tensor in data))
    shares[2].update(*(tensor[[2, 4, 5, 6, 8, 9, 10, 11, 12]] for tensor in data))
    reduced, _ = metric_and_data(name)
    for state, reduce in whole._reductions.items():
        setattr(reduced, state, reduce(torch.stack([getattr(share, state) for share in shares])))
    for key, figure in whole.bootstrap().items():
        other = reduced.bootstrap()[key]
        torch.testing.assert_close(other.replicates, figure.replicates, equal_nan=True, rtol=0, atol=1e-12)
        torch.testing.assert_close(other.interval, figure.interval, equal_nan=True, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_queries_and_none_is_kept_unless_asked_for(name: str) -> None:
    metric, data = metric_and_data(name)
    before = {state: getattr(metric, state).shape for state in metric._reductions}
    for _ in range(3):
        metric.update(*data)
    assert {state: getattr(metric, state).shape for state in metric._reductions} == before
    plain, _ = metric_and_data(name, replicates=0)
    plain.update(*data)
    assert plain.bootstrap() == {}
    assert not any("replicate" in state for state in plain._reductions)


@pytest.mark.parametrize("name", ["rec2ftp", "sim_am"])
def test_row_numbers_are_asked_for(name: str) -> None:
    metric, data = metric_and_data(name)
    with pytest.raises(ValueError, match="needs query_ids"):
        metric.update(*data[:-1])


@pytest.mark.parametrize("name", NAMES)
def test_weights_drawn_before_give_the_same_numbers_to_the_bit(name: str) -> None:
    metric, data = metric_and_data(name)
    metric.update(*data)
    given, _ = metric_and_data(name)
    given.update(*data, weights=poisson_weights(IDS, REPLICATES))
    for state in metric._reductions:
        assert torch.equal(getattr(given, state), getattr(metric, state)), state
    with pytest.raises(ValueError, match="got weights of 7"):
        given.update(*data, weights=poisson_weights(IDS, 7))


def replicate_sums(values: torch.Tensor, processes: int) -> torch.Tensor:
    """Weighted sums (replicate, set) of values (query, set), added up over shares of the queries."""
    shares = [torch.arange(len(values))[share::processes] for share in range(processes)]
    return sum(poisson_weights(ids).T @ values[ids].double() for ids in shares)


def covered(interval: torch.Tensor, truth: float) -> float:
    return float(((interval[0] <= truth) & (truth <= interval[1])).double().mean())


@pytest.mark.parametrize("processes", [1, 2])
def test_intervals_of_a_mean_hold_the_truth_as_often_as_they_say(processes: int) -> None:
    sets, queries = 4000, 400
    # Skewed, as similarities are; the truth is the mean of Beta(4, 2).
    values = torch.from_numpy(np.random.default_rng(1).beta(4, 2, (queries, sets)))
    ones = torch.ones(queries, 1)
    replicates = replicate_sums(values, processes) / replicate_sums(ones, processes)
    assert covered(percentile_interval(replicates), 4 / 6) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("processes", [1, 2])
def test_intervals_of_a_recall_hold_the_truth_as_often_as_they_say(processes: int) -> None:
    sets, queries, truth = 4000, 500, 0.7
    random = np.random.default_rng(2)
    corrected = torch.from_numpy(random.random((queries, sets)) < 0.3).double()
    both = corrected * torch.from_numpy(random.random((queries, sets)) < truth)
    sums = [replicate_sums(counts, processes) for counts in (both, corrected)]
    found = bootstrapped_share(both.sum(0), corrected.sum(0), *sums)
    assert covered(found.interval, truth) == pytest.approx(0.95, abs=0.02)
    assert covered(percentile_interval(found.replicates), truth) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("truth", [0.1, 0.5, 0.9])
def test_a_recall_of_few_corrected_queries_is_never_surer_than_it_may_be(truth: float) -> None:
    sets, queries = 2000, 100
    random = np.random.default_rng(3)
    corrected = torch.from_numpy(random.random((queries, sets)) < 0.05).double()
    both = corrected * torch.from_numpy(random.random((queries, sets)) < truth)
    found = bootstrapped_share(both.sum(0), corrected.sum(0), *(replicate_sums(x, 1) for x in (both, corrected)))
    some = corrected.sum(0) > 0
    assert covered(found.interval[:, some], truth) >= 0.93
    # The percentile interval alone fails here, which is why it is widened.
    assert covered(percentile_interval(found.replicates)[:, some], truth) < 0.93


def test_wilson_interval_equals_scipy() -> None:
    for part, whole in ((0, 4), (4, 4), (3, 17), (500, 900)):
        expected = stats.binomtest(part, whole).proportion_ci(0.95, method="wilson")
        found = wilson_interval(torch.tensor(float(part)).double(), torch.tensor(float(whole)).double())
        assert found.tolist() == pytest.approx([expected.low, expected.high])


def rec2ftp(corrected: int, both: int, queries: int = 60) -> dict[str, Bootstrapped]:
    metric = Rec2FTP(replicates=1000)
    right, wrong = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    icl = torch.stack([right if row < both else wrong for row in range(queries)])
    ft = torch.stack([right if row < corrected else wrong for row in range(queries)])
    zsl, gold = wrong.expand(queries, 2), torch.ones(queries, dtype=torch.int64)
    metric.update(zsl, icl, ft, gold, torch.arange(queries))
    return metric.bootstrap()


def test_four_corrected_queries_look_as_uncertain_as_they_are() -> None:
    found = rec2ftp(corrected=4, both=4)["value"]
    assert found.estimate == 1
    assert found.interval[0] < 0.52
    assert found.interval[1] == 1
    # No corrected query is drawn with probability e^-4.
    assert float(found.undefined_share) == pytest.approx(math.exp(-4), abs=0.015)


def test_none_corrected_is_undefined_in_every_replicate() -> None:
    found = rec2ftp(corrected=0, both=0)
    assert found["value"].interval.isnan().all()
    assert found["value"].undefined_share == 1
    assert found["agreement"].interval[1] == 1


def test_no_query_and_one_query_tell_nothing_of_the_spread() -> None:
    for queries in (0, 1):
        metric, data = metric_and_data("sim_aou")
        metric.update(*(tensor[:queries] for tensor in data))
        for figure in metric.bootstrap().values():
            assert figure.interval.isnan().all()
            assert figure.standard_error.isnan().all()
            assert bool(figure.estimate.isnan().all()) == (queries == 0)
    figure = metric.bootstrap()["value"]
    assert all(math.isnan(value) for value in paired_difference(figure, figure))


def test_accuracies_equal_a_loop() -> None:
    right = draw(1500, 2) > torch.tensor([0.0, 1.0])
    ids = torch.randperm(5000, generator=torch.Generator().manual_seed(1))[:1500]
    found = bootstrapped_accuracies(right, ids, replicates=20)
    weights = poisson_weights(ids, 20)
    for replicate in range(20):
        for column in range(2):
            expected = np.average(right[:, column].numpy(), weights=weights[:, replicate].numpy())
            assert float(found.replicates[replicate, column]) == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(found.estimate, right.double().mean(0))


def bootstrapped(values: torch.Tensor) -> Bootstrapped:
    weights = poisson_weights(torch.arange(len(values)))
    replicates = weights.T @ values / weights.sum(0)
    return Bootstrapped(values.mean(), replicates, percentile_interval(replicates))


def test_paired_test_agrees_with_the_paired_t_test_and_sees_what_an_unpaired_one_misses() -> None:
    query, noise = 3 * draw(300, seed=1).double(), draw(300, 2, seed=2).double()
    one, other = query + noise[:, 0] + 0.2, query + noise[:, 1]
    test = paired_difference(bootstrapped(one), bootstrapped(other))
    exact = stats.ttest_rel(one, other)
    low, high = exact.confidence_interval()
    assert test.difference == pytest.approx(float((one - other).mean()))
    assert (test.low, test.high) == pytest.approx((low, high), abs=0.03)
    assert test.p == pytest.approx(exact.pvalue, abs=0.03)
    assert stats.ttest_ind(one, other).pvalue > 0.1 > test.p


def test_paired_test_is_wrong_about_equals_as_often_as_it_says() -> None:
    sets, queries = 2000, 200
    values = torch.randn(queries, sets, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    replicates = replicate_sums(values, 1) / replicate_sums(torch.ones(queries, 1), 1)
    intervals, zero = percentile_interval(replicates), torch.zeros(())
    none = Bootstrapped(zero, torch.zeros(1000), torch.zeros(2))
    small = [
        paired_difference(Bootstrapped(values[:, n].mean(), replicates[:, n], intervals[:, n]), none).p < 0.05
        for n in range(sets)
    ]
    assert np.mean(small) == pytest.approx(0.05, abs=0.02)


def test_a_paired_test_of_four_corrected_queries_is_not_surer_than_they_allow() -> None:
    four, none = rec2ftp(corrected=4, both=4)["value"], rec2ftp(corrected=4, both=0)["value"]
    test = paired_difference(four, none)
    assert test.difference == 1
    # Every replicate says 1; Newcombe's interval of two shares of 4 says this (1998, method 10).
    ends = [stats.binomtest(part, 4).proportion_ci(0.95, method="wilson") for part in (4, 0)]
    assert test.low == pytest.approx(1 - math.hypot(1 - ends[0].low, ends[1].high))
    assert test.p == pytest.approx(2 * stats.norm.sf(stats.norm.ppf(0.975) / math.hypot(1 - ends[0].low, ends[1].high)))
    assert test.p > 2 / 1001


def test_paired_differences_take_the_single_figures_that_both_have() -> None:
    metric, data = metric_and_data("sim_aou")
    metric.update(*data)
    found = metric.bootstrap()
    tests = paired_differences(found, {name: figure for name, figure in found.items() if name != "raw"})
    assert "raw" not in tests
    assert not any("per_layer" in name for name in tests)
    assert tests["value"] == (0.0, 0.0, 0.0, 1.0)
