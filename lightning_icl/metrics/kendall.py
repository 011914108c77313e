"""Attention to training tokens: do in-context learning and fine-tuning rank them alike? (Dai et al., section 4.3)"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_icl.metrics._null import random_vectors
from lightning_icl.metrics._plotting import plot_layers
from lightning_icl.metrics.forms import Form
from lightning_icl.metrics.mean import QueryMeans
from lightning_icl.metrics.rank import kendall_tau, tie_ranks
from lightning_icl.metrics.top import top_recall

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Float32 scores that are equal in exact arithmetic differ by no more than this share of the largest of their row.
_ROUNDING = 2e-6
# Salts: random scores of tokens and of demonstrations must be independent of each other and of other baselines.
_TOKENS, _EXAMPLES = 2, 3
# Names of tau, its baseline and the recall over tokens and over whole demonstrations.
_LEVELS = {"tokens": ("tokens", "random", "top_tokens"), "examples": ("example", "example_random", "top_examples")}


class KendallResult(NamedTuple):
    """Rank correlation of attention to training tokens, in its forms."""

    tokens: Form
    """Tau-b over demonstration tokens."""
    random: Form
    """Its baseline against random scores."""
    example: Form
    """Tau-b over whole demonstrations, by their share of a softmax over tokens."""
    example_random: Form
    """Its baseline against random scores."""
    top_tokens: Form
    """Share of the first `top_tokens` tokens of one order that are among the first of the other."""
    top_examples: Form
    """The same of demonstrations."""
    visible: Form
    """Share of demonstration tokens that the model's sliding windows leave in reach."""
    example_icl: Tensor
    """Mean score of each demonstration's tokens in context (layer, example)."""
    example_ft: Tensor
    """Mean inner product of each demonstration's tokens with the query's in fine-tuning (layer, example)."""

    @property
    def value(self) -> float:
        """The main figure."""
        return self.tokens.value


class Ranking(NamedTuple):
    """A batch's in-context order, over tokens or over whole demonstrations."""

    ranks: Int[Tensor, "row item"]
    """Of the scores; rows are queries and layers."""
    seen: Bool[Tensor, "query layer item"] | None
    """Which items are in reach; None where all are."""
    by_chance: Float[Tensor, "query layer"]
    """Tau-b with random scores, float64."""


class InContext(NamedTuple):
    """What a batch's in-context scores tell alone, whatever they are compared with."""

    tokens: Ranking
    """Of demonstration tokens."""
    examples: Ranking
    """Of whole demonstrations."""
    example_means: Float[Tensor, "query layer example"]
    """Mean score of each demonstration's tokens."""


def example_scores(scores: Float[Tensor, "*shape token"], lengths: Sequence[int]) -> Float[Tensor, "*shape example"]:
    """Logarithm of each demonstration's share of attention: log-sum-exp over its tokens.

    The softmax over all tokens divides every share by the same sum, which changes no order, and summing logarithms
    keeps small shares apart that would all be 0 in float32. It is taken in float64: where a token that all have in
    common outweighs the others, sums differ by less than float32 would leave of them.

    Args:
        scores: of all demonstrations' tokens, one demonstration after the other.
        lengths: of the demonstrations.

    >>> example_scores(torch.zeros(3), [1, 2])
    tensor([0.0000, 0.6931], dtype=torch.float64)
    """
    # By loop over demonstrations: a few dozen at most, each of its own length.
    return torch.stack([part.double().logsumexp(-1) for part in scores.split(lengths, dim=-1)], dim=-1)


def _ranks(scores: Tensor, seen: Tensor | None) -> Tensor:
    """Ranks of scores (query, layer, item); queries and layers become rows."""
    return tie_ranks(scores.flatten(0, 1), None if seen is None else seen.flatten(0, 1), resolution=_ROUNDING)


def _tau(ranks: Tensor, other: Tensor, seen: Tensor | None, shape: torch.Size) -> Tensor:
    """Tau of two orders (query, layer)."""
    return kendall_tau(ranks, other, None if seen is None else seen.flatten(0, 1)).view(shape)


def _reasons(top_tokens: int, top_examples: int) -> dict[str, tuple[str, ...]]:
    """By form why a query may have no value."""
    tied = "in one of the two orders all differences are no more than rounding"
    texts: dict[str, tuple[str, ...]] = {}
    for level, things, first in (
        ("tokens", "demonstration tokens", top_tokens),
        ("examples", "demonstrations", top_examples),
    ):
        tau, chance, top = _LEVELS[level]
        texts[tau] = texts[chance] = (f"fewer than two {things} are within the probe token's reach", tied)
        texts[top] = (
            f"the prompt has no more than {first} {things}",
            f"no more than {first} {things} are within the probe token's reach",
        )
    return texts


class Kendall(QueryMeans):
    """Kendall rank correlation (tau-b) between attention to training tokens in ICL and in fine-tuning.

    In-context order: scores before softmax from the probe token to each demonstration token, summed over heads.
    Fine-tuning order: inner product of the probe token's query vector with those recorded in training. Every query
    counts. Scores that differ by float32 rounding alone are ties, as they are in exact arithmetic: at the first layer
    of a model with relative positions, a token has the same query vector wherever it stands.

    Update takes both scores at all prefix tokens (query, layer, prefix), the queries' numbers (query,), which seed
    the baseline and the bootstrap, and which prefix tokens are visible where a sliding window hides some. Compute gives
    the mean over tokens, `details` a `KendallResult`.

    Args:
        token_example: for each prefix token the number of its demonstration, -1 for BOS and separators, which do not
            take part.
        layers: number of attention layers.
        top_tokens: k of the recall over tokens.
        top_examples: k of the recall over demonstrations.
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
        kwargs: see `torchmetrics.Metric`.

    >>> metric = Kendall(token_example=(-1, 0, 0, 1, -1), layers=1)
    >>> icl, ft = torch.tensor([[[9.0, 1.0, 2.0, 3.0, 9.0]]]), torch.tensor([[[0.0, 1.0, 3.0, 2.0, 0.0]]])
    >>> metric.update(icl, ft, torch.tensor([0]))
    >>> metric.compute()
    tensor(0.3333, dtype=torch.float64)
    """

    def __init__(
        self,
        token_example: Sequence[int],
        layers: int,
        *,
        top_tokens: int = 100,
        top_examples: int = 5,
        replicates: int = 0,
        **kwargs: Any,
    ) -> None:
        names = ("tokens", "random", "example", "example_random", "top_tokens", "top_examples", "visible")
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (layers,))
        super().__init__(shapes, replicates, reasons=_reasons(top_tokens, top_examples), **kwargs)
        numbers = torch.tensor(token_example, dtype=torch.int64)
        places = (numbers >= 0).nonzero().flatten()
        self.places: Tensor
        # A buffer, so that it follows the metric to its device; rebuilt with it, so not part of its state. Tokens of a
        # demonstration side by side, as they stand in the prompt.
        self.register_buffer("places", places[numbers[places].argsort(stable=True)], persistent=False)
        self.lengths: list[int] = numbers[places].bincount().tolist()
        for name in ("example_icl", "example_ft"):
            # Separate counts, since a demonstration may be in reach of some queries only.
            self._add_state(f"{name}_sum", (layers, len(self.lengths)))
            self._add_state(f"{name}_count", (layers, len(self.lengths)), torch.int64)
        self.first = {"tokens": top_tokens, "examples": top_examples}

    def in_context(
        self,
        icl: Float[Tensor, "query layer prefix"],
        query_ids: Int[Tensor, " query"],
        visible: Bool[Tensor, "query layer prefix"] | None = None,
    ) -> InContext:
        """What in-context scores tell alone, which every comparison with the same scores can share."""
        scores, seen = self._tokens(icl, visible)
        summed, shown = self._examples(scores, seen)
        return InContext(
            tokens=self._ranking(scores, seen, query_ids, _TOKENS),
            examples=self._ranking(summed, shown, query_ids, _EXAMPLES),
            example_means=self._example_means(scores),
        )

    @staticmethod
    def _ranking(scores: Tensor, seen: Tensor | None, query_ids: Tensor, salt: int) -> Ranking:
        ranks, drawn = _ranks(scores, seen), random_vectors(query_ids, scores.shape[1:], kind="gaussian", salt=salt)
        return Ranking(ranks, seen, _tau(ranks, _ranks(drawn, seen), seen, scores.shape[:-1]))

    def update(
        self,
        icl: Float[Tensor, "query layer prefix"],
        ft: Float[Tensor, "query layer prefix"],
        query_ids: Int[Tensor, " query"],
        visible: Bool[Tensor, "query layer prefix"] | None = None,
        weights: Float[Tensor, "query replicate"] | None = None,
        in_context: InContext | None = None,
    ) -> None:
        """Add a batch of queries.

        Args:
            icl: scores in context.
            ft: inner products in fine-tuning.
            query_ids: the queries' numbers.
            visible: which prefix tokens are in reach; None where all are.
            weights: the bootstrap's, where they are drawn already.
            in_context: what the same in-context scores tell alone, where it is known already.
        """
        # It does not depend on the fine-tuning, so controls with the same in-context scores share it.
        in_context = in_context or self.in_context(icl, query_ids, visible)
        weights = self._weights(query_ids, weights)
        # Both sides are masked alike: -inf ties what is out of reach on either.
        scores, seen = self._tokens(ft, visible)
        self._add_level("tokens", in_context.tokens, scores, weights)
        self._add("visible", torch.ones_like(scores[..., 0]) if seen is None else seen.double().mean(-1), weights)
        self._add("example_icl", in_context.example_means)
        self._add("example_ft", self._example_means(scores))
        self._add_level("examples", in_context.examples, self._examples(scores, seen)[0], weights)

    def _tokens(self, scores: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scores of the demonstration tokens, -inf where out of reach; and which are in reach."""
        scores = scores.index_select(-1, self.places)
        if visible is None:
            return scores, None
        seen = visible.index_select(-1, self.places)
        return scores.masked_fill(~seen, -torch.inf), seen

    def _examples(self, scores: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scores of whole demonstrations; and which have a token in reach."""
        scores = example_scores(scores, self.lengths)
        # A log-sum-exp of -inf everywhere is -inf: no token of this demonstration is in reach.
        return scores, None if seen is None else torch.isfinite(scores)

    def _example_means(self, scores: Tensor) -> Tensor:
        """Means over each demonstration's tokens; not finite where one is out of reach."""
        return torch.stack([part.mean(-1) for part in scores.split(self.lengths, dim=-1)], dim=-1)

    def _add_level(self, level: str, ranking: Ranking, scores: Tensor, weights: Tensor | None) -> None:
        """Taus and recall over tokens or over whole demonstrations."""
        tau, chance, top = _LEVELS[level]
        seen, items = ranking.seen, scores.shape[-1]
        ranks, rows_seen = _ranks(scores, seen), None if seen is None else seen.flatten(0, 1)
        count = torch.full(scores.shape[:-1], items, device=scores.device) if seen is None else seen.sum(-1)
        # "Tied" applies wherever the first reason does not: nothing else leaves a tau undefined.
        few, tied = count < 2, torch.ones_like(count, dtype=torch.bool)
        self._add(tau, _tau(ranking.ranks, ranks, seen, count.shape), weights, reasons=(few, tied))
        self._add(chance, ranking.by_chance, weights, reasons=(few, tied))
        # All or none of what is counted would be among the first whatever the scores.
        first = self.first[level]
        recall = top_recall(ranking.ranks, ranks, first, rows_seen)
        short = torch.full_like(tied, items <= first)
        self._add(top, recall.view(count.shape), weights, reasons=(short, count <= first))

    def details(self) -> KendallResult:
        """All forms over all queries; for all processes to call, like `compute`."""
        with self.sync_context():
            forms: dict[str, Any] = {name: self._form(name) for name in self.names}
            example_icl, example_ft = self._mean("example_icl"), self._mean("example_ft")
        return KendallResult(**forms, example_icl=example_icl, example_ft=example_ft)

    def plot(self, val: KendallResult | None = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":
        """Curves over layers."""
        result = val or self.details()
        curves = {
            "Kendall": result.tokens.per_layer,
            "random": result.random.per_layer,
            "examples": result.example.per_layer,
        }
        return plot_layers(curves, "Kendall rank correlation", ax)
