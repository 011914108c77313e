"""Every metric against a naive loop, under splitting into batches and processes, and on degenerate input."""

import itertools
import math
import random

import lightning as L
import numpy as np
import pytest
import torch
from exactness import make_trainer
from scipy.spatial.distance import cosine as scipy_cosine
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric

from lightning_icl.metrics import Kendall, Rec2FTP, SimAM, SimAOU
from lightning_icl.metrics._null import random_vectors
from lightning_icl.metrics.attention import own_weights
from lightning_icl.metrics.forms import flattened
from lightning_icl.metrics.kendall import example_scores
from lightning_icl.metrics.rank import tie_ranks
from lightning_icl.metrics.top import top_recall

QUERIES, LAYERS, HEADS, TOKENS, WIDTH, ANSWERS = 11, 3, 2, 9, 16, 3
TOKEN_EXAMPLE = (-1, 0, 0, 0, -1, 1, 1, -1, 2, 2, 2, -1)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(name: str) -> tuple[Metric, tuple[torch.Tensor, ...]]:
    ids = torch.arange(QUERIES) * 7
    if name == "rec2ftp":
        gold = torch.arange(QUERIES) % ANSWERS
        return Rec2FTP(), (*(draw(QUERIES, ANSWERS, seed=s) for s in range(3)), gold)
    if name == "sim_aou":
        return SimAOU(LAYERS), (*(draw(QUERIES, LAYERS, WIDTH, seed=s) for s in range(3)), ids)
    if name == "sim_am":
        lengths = torch.arange(QUERIES) % (TOKENS - 2) + 3
        beyond = torch.arange(TOKENS) >= lengths[:, None]
        maps = [draw(QUERIES, LAYERS, HEADS, TOKENS, seed=s).masked_fill(beyond[:, None, None], 0) for s in range(3)]
        return SimAM(LAYERS, HEADS), (*maps, lengths)
    scores = [draw(QUERIES, LAYERS, len(TOKEN_EXAMPLE), seed=s) for s in range(2)]
    return Kendall(TOKEN_EXAMPLE, LAYERS, top_tokens=4, top_examples=2), (*scores, ids)


def flat(result: tuple) -> np.ndarray:
    values = flattened(result._asdict()).values()
    return np.concatenate([np.atleast_1d(np.asarray(value, dtype=float)).ravel() for value in values])


NAMES = ["rec2ftp", "sim_aou", "sim_am", "kendall"]


@pytest.mark.parametrize("name", NAMES)
def test_splitting_into_batches_changes_nothing(name: str) -> None:
    whole, data = inputs(name)
    whole.update(*data)
    parts, _ = inputs(name)
    for rows in ([10], [3, 1, 4], [0, 2, 5, 6, 7, 8, 9]):
        parts.update(*(tensor[rows] for tensor in data))
    np.testing.assert_allclose(flat(parts.details()), flat(whole.details()), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_processes_add_up_even_where_one_has_no_queries(name: str) -> None:
    whole, data = inputs(name)
    whole.update(*data)
    shares = [inputs(name)[0] for _ in range(3)]
    shares[0].update(*(tensor[:4] for tensor in data))
    shares[2].update(*(tensor[4:] for tensor in data))
    reduced, _ = inputs(name)
    for state, reduce in whole._reductions.items():
        setattr(reduced, state, reduce(torch.stack([getattr(share, state) for share in shares])))
    reduced._update_count = 1
    np.testing.assert_allclose(flat(reduced.details()), flat(whole.details()), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_reset_forgets_everything_and_pickling_keeps_it(name: str) -> None:
    import pickle

    metric, data = inputs(name)
    metric.update(*data)
    expected = flat(metric.details())
    np.testing.assert_array_equal(flat(pickle.loads(pickle.dumps(metric)).details()), expected)
    metric.reset()
    metric.update(*data)
    np.testing.assert_array_equal(flat(metric.details()), expected)


@pytest.mark.parametrize("name", NAMES)
def test_plot_shows_the_result(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    metric, data = inputs(name)
    metric.update(*data)
    figure, ax = metric.plot()
    result = metric.details()
    if name == "rec2ftp":
        assert [bar.get_height() for bar in ax.patches] == result.right_table.flatten().tolist()
    else:
        np.testing.assert_allclose(ax.lines[0].get_ydata(), result[0].per_layer.numpy())
    matplotlib.pyplot.close(figure)


class Measured(L.LightningModule):
    """A user's module that logs a metric as it is."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.metric, self.inputs = inputs(name)

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.metric.update(*(tensor[batch] for tensor in self.inputs))
        self.log("figure", self.metric, on_step=False, on_epoch=True, batch_size=len(batch))


@pytest.mark.parametrize("name", NAMES)
def test_lightning_logs_a_metric_as_its_main_figure(name: str) -> None:
    rows = DataLoader(torch.arange(QUERIES), batch_size=3)
    logged = make_trainer().validate(Measured(name), rows, verbose=False)[0]["figure"]
    metric, data = inputs(name)
    metric.update(*data)
    assert logged == pytest.approx(metric.details().value, abs=1e-6)
    assert metric.compute().shape == ()


def test_rec2ftp_counts_by_hand() -> None:
    right, wrong = [0.0, 1.0], [1.0, 0.0]
    cases = (
        [(wrong, right, right)] * 3
        + [(wrong, wrong, right)] * 2
        + [(wrong, right, wrong)] * 4
        + [(right, right, wrong)]
    )
    zsl, icl, ft = (torch.tensor([case[view] for case in cases]) for view in range(3))
    metric = Rec2FTP()
    metric.update(zsl, icl, ft, torch.ones(len(cases), dtype=torch.int64))
    result = metric.details()
    assert (result.value, result.corrected_by_ft, result.corrected_by_both) == (3 / 5, 5, 3)
    assert (result.reverse_recall, result.corrected_by_icl, result.agreement) == (3 / 7, 7, 3 / 10)
    assert result.right_table[1, 1, 0] == 1
    assert result.right_table.sum() == len(cases)


def test_rec2ftp_is_undefined_where_fine_tuning_corrects_nothing() -> None:
    metric = Rec2FTP()
    same = torch.tensor([[1.0, 0.0]])
    metric.update(same, same, same, torch.tensor([1]))
    assert math.isnan(metric.details().value)
    assert metric.details().corrected_by_ft == 0


def test_ties_between_answers_go_to_the_first() -> None:
    metric = Rec2FTP()
    tie = torch.zeros(1, 3)
    metric.update(tie, tie, tie, torch.tensor([0]))
    assert metric.details().right_table[1, 1, 1] == 1


def test_sim_aou_equals_a_loop() -> None:
    metric, (zsl, icl, ft, ids) = inputs("sim_aou")
    metric.update(zsl, icl, ft, ids)
    result = metric.details()
    null = random_vectors(ids, (LAYERS, WIDTH), kind="gaussian", salt=0)
    for layer in range(LAYERS):
        norm, raw, random = [], [], []
        for query in range(QUERIES):
            z, i, f = (view[query, layer].double().numpy() for view in (zsl, icl, ft))
            u = [vector / np.linalg.norm(vector) for vector in (z, i, f)]
            norm.append(1 - scipy_cosine(u[1] - u[0], u[2] - u[0]))
            raw.append(1 - scipy_cosine(i - z, f - z))
            random.append(1 - scipy_cosine(u[1] - u[0], null[query, layer].double().numpy()))
        assert result.normalised.per_layer[layer] == pytest.approx(np.mean(norm), abs=1e-6)
        assert result.raw.per_layer[layer] == pytest.approx(np.mean(raw), abs=1e-6)
        assert result.random.per_layer[layer] == pytest.approx(np.mean(random), abs=1e-6)
    assert result.value == pytest.approx(float(result.normalised.per_layer.mean()))


def test_unrelated_updates_score_high_when_normalised_but_not_raw() -> None:
    """Deutch et al., section 3: the shared -u(h_ZSL) alone makes the normalised form positive."""
    torch.manual_seed(0)
    base = torch.randn(500, 1, 64)
    metric = SimAOU(1)
    metric.update(base, 4 * torch.randn(500, 1, 64), 4 * torch.randn(500, 1, 64), torch.arange(500))
    result = metric.details()
    assert result.value > 0.4
    assert abs(result.raw.value) < 0.15
    assert abs(result.random.value) < 0.02


def test_a_zero_update_is_undefined_not_zero() -> None:
    metric = SimAOU(2)
    zsl, icl = draw(3, 2, 4), draw(3, 2, 4, seed=1)
    ft = zsl.clone()
    ft[:, 1] += 1
    metric.update(zsl, icl, ft, torch.arange(3))
    result = metric.details()
    assert math.isnan(result.raw.per_layer[0])
    assert result.raw.value == pytest.approx(float(result.raw.per_layer[1]))


def test_sim_am_equals_a_loop() -> None:
    metric, (zsl, icl, ft, lengths) = inputs("sim_am")
    metric.update(zsl, icl, ft, lengths)
    result = metric.details()
    for layer in range(LAYERS):
        for head in range(HEADS):
            rows = [
                [view[query, layer, head, : int(lengths[query])].double().numpy() for view in (zsl, icl, ft)]
                for query in range(QUERIES)
            ]
            soft = [[np.exp(a) / np.exp(a).sum() for a in row] for row in rows]
            place = layer, head
            for source, names in (
                (rows, ("scores", "zsl", "difference")),
                (soft, ("softmax", "softmax_zsl", "softmax_difference")),
            ):
                expected = (
                    np.mean([1 - scipy_cosine(i, f) for z, i, f in source]),
                    np.mean([1 - scipy_cosine(i, z) for z, i, f in source]),
                    np.mean([1 - scipy_cosine(i - z, f - z) for z, i, f in source]),
                )
                for name, value in zip(names, expected, strict=True):
                    assert getattr(result, name).per_head[place] == pytest.approx(value, abs=1e-6)
    assert result.value == pytest.approx(float(result.scores.per_head.mean()))


def test_differences_of_unmoved_layers_are_undefined() -> None:
    _, (zsl, icl, ft, lengths) = inputs("sim_am")
    metric = SimAM(LAYERS, HEADS, unmoved_layers=(0,))
    metric.update(zsl, icl, ft, lengths)
    result = metric.details()
    assert torch.isnan(result.difference.per_layer).tolist() == [True, False, False]
    assert not torch.isnan(result.scores.per_layer).any()
    assert result.difference.value == pytest.approx(float(result.difference.per_layer[1:].mean()))


def test_weights_after_softmax_sum_to_one_over_own_tokens() -> None:
    weights = own_weights(draw(2, 1, 1, 5), torch.tensor([5, 2]))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 1, dtype=torch.float64))
    assert (weights[1, 0, 0, 2:] == 0).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="made for"):
        SimAOU(LAYERS + 1).update(*inputs("sim_aou")[1])


def test_kendall_leaves_bos_and_separators_out() -> None:
    metric, (icl, ft, ids) = inputs("kendall")
    outside = torch.tensor(TOKEN_EXAMPLE) < 0
    metric.update(icl, ft, ids)
    other, _ = inputs("kendall")
    other.update(icl.masked_fill(outside, 99.0), ft.masked_fill(outside, -99.0), ids)
    assert metric.details().value == other.details().value


def test_kendall_baseline_is_near_zero_and_equal_orders_give_one() -> None:
    metric = Kendall(tuple(n // 10 for n in range(100)), 1)
    scores = draw(200, 1, 100)
    metric.update(scores, 3 * scores + 1, torch.arange(200))
    result = metric.details()
    assert result.value == pytest.approx(1.0, abs=1e-4)  # a near-tie may be a tie on one side alone
    assert abs(result.random.value) < 0.01
    assert math.isnan(result.top_tokens.value)  # 100 of 100 tokens would always be found
    assert abs(result.example_random.value) < 0.06


def test_tokens_out_of_a_window_do_not_count() -> None:
    metric, (icl, ft, ids) = inputs("kendall")
    visible = torch.ones_like(icl, dtype=torch.bool)
    visible[..., :5] = False  # the first demonstration of three
    metric.update(icl, ft, ids, visible)
    shorter = Kendall([0 if n == 1 else 1 if n == 2 else -1 for n in TOKEN_EXAMPLE], LAYERS)
    shorter.update(icl, ft, ids)
    assert metric.details().value == pytest.approx(shorter.details().value)
    assert metric.details().example.value == pytest.approx(shorter.details().example.value)
    assert metric.details().visible.value == pytest.approx(5 / 8)


def test_example_scores_order_like_summed_softmax() -> None:
    scores, numbers = draw(20, 8), torch.tensor([0, 0, 1, 1, 1, 2, 3, 3])
    weights = scores.softmax(-1)
    shares = torch.stack([weights[:, numbers == n].sum(-1) for n in range(4)], -1)
    assert torch.equal(example_scores(scores, [2, 3, 1, 2]).argsort(-1), shares.argsort(-1))


def test_example_scores_keep_what_a_shared_token_outweighs() -> None:
    scores = torch.tensor([19.0, 8.5, 19.0, 7.9, 19.0, 8.1])
    found = example_scores(scores, [2, 2, 2]) - 19
    expected = np.log1p(np.exp(scores[1::2].double().numpy() - 19))  # 3e-5 and less
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def recall(one: Tensor, other: Tensor, first: int, visible: Tensor | None = None) -> Tensor:
    return top_recall(tie_ranks(one, visible), tie_ranks(other, visible), first, visible)


def test_top_recall_by_hand() -> None:
    one, other = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]]), torch.tensor([[1.0, 5.0, 4.0, 2.0, 3.0]])
    assert recall(one, other, 3).item() == pytest.approx(2 / 3)
    assert torch.isnan(recall(one, other, 5))


def places(scores: tuple[float, ...], first: int) -> list[set[int]]:
    """The highest items in every order of items that agrees with their scores."""
    orders = itertools.permutations(range(len(scores)))
    kept = [order for order in orders if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))]
    return [set(order[:first]) for order in kept]


@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_top_recall_is_the_mean_over_all_orders_of_the_tied(first: int) -> None:
    rng = random.Random(first)
    for _ in range(30):
        one, other = (tuple(float(rng.randrange(3)) for _ in range(6)) for _ in range(2))
        visible = [rng.random() < 0.8 for _ in range(6)]
        kept = [place for place, shown in enumerate(visible) if shown]
        firsts = [places(tuple(scores[place] for place in kept), first) for scores in (one, other)]
        shares = [len(a & b) / first for a in firsts[0] for b in firsts[1]]
        found = recall(torch.tensor([one]), torch.tensor([other]), first, torch.tensor([visible])).item()
        expected = sum(shares) / len(shares) if len(kept) > first else math.nan
        assert found == pytest.approx(expected, nan_ok=True), (one, other, visible)


def test_scores_of_demonstrations_are_means_over_their_tokens() -> None:
    numbers, generator = [-1, 0, 0, 1, -1, 2, 2, 2], torch.Generator().manual_seed(0)
    icl, ft = (torch.randn(5, 2, 8, generator=generator) for _ in range(2))
    metric = Kendall(token_example=numbers, layers=2)
    metric.update(icl[:2], ft[:2], torch.arange(2))
    metric.update(icl[2:], ft[2:], torch.arange(2, 5))
    for name, scores in (("example_icl", icl), ("example_ft", ft)):
        expected = torch.zeros(2, 3, dtype=torch.float64)
        for query in scores.double():
            for place, number in enumerate(numbers):
                if number >= 0:
                    expected[:, number] += query[:, place] / numbers.count(number) / len(scores)
        torch.testing.assert_close(getattr(metric.details(), name), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("hidden", [False, True])
def test_kendall_with_the_in_context_order_of_another_metric_is_kendall(hidden: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    icl, one, other = torch.randn(3, 4, 2, 12, generator=generator)
    visible = torch.arange(12).expand(4, 2, 12) > 5 if hidden else None
    ids, places = torch.tensor([3, 1, 8, 5]), (-1, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, -1)
    first, second, alone = (Kendall(places, layers=2, top_tokens=3, top_examples=1) for _ in range(3))
    first.update(icl, one, ids, visible)
    second.update(icl, other, ids, visible, in_context=first.in_context(icl, ids, visible))
    alone.update(icl, other, ids, visible)
    np.testing.assert_array_equal(flat(second.details()), flat(alone.details()))
    assert second.compute() != first.compute()
