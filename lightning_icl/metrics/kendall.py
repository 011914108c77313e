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
from lightning_icl.metrics.rank import kendall_tau
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


class RandomBaseline(NamedTuple):
    """The baselines of a batch of queries: tau-b of in-context scores with random ones (query, layer), float64."""

    tokens: Tensor
    """Over demonstration tokens."""
    examples: Tensor
    """Over whole demonstrations."""


def example_scores(
    scores: Float[Tensor, "*shape token"], token_example: Int[Tensor, " token"], examples: int
) -> Float[Tensor, "*shape example"]:
    """Logarithm of each demonstration's share of attention: log-sum-exp over its tokens.

    The softmax over all tokens divides every share by the same sum, which changes no order, and summing logarithms
    keeps small shares apart that would all be 0 in float32. It is taken in float64: where a token that all have in
    common outweighs the others, sums differ by less than float32 would leave of them.

    >>> example_scores(torch.zeros(3), torch.tensor([0, 1, 1]), 2)
    tensor([0.0000, 0.6931], dtype=torch.float64)
    """
    # By loop over demonstrations: a few dozen at most, each of its own length.
    parts = [scores[..., token_example == number].double().logsumexp(-1) for number in range(examples)]
    return torch.stack(parts, dim=-1)


def _taus(icl: Tensor, other: Tensor, in_reach: Tensor | None) -> Tensor:
    """Tau of in-context scores with other scores (query, layer)."""
    # Queries and layers become rows: one call ranks them all.
    rows_in_reach = None if in_reach is None else in_reach.flatten(0, 1)
    return kendall_tau(icl.flatten(0, 1), other.flatten(0, 1), rows_in_reach, resolution=_ROUNDING).view(icl.shape[:-1])


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
        self.places: Tensor
        self.numbers: Tensor
        # Buffers, so that they follow the metric to its device; rebuilt with it, so not part of its state.
        self.register_buffer("places", (numbers >= 0).nonzero().flatten(), persistent=False)
        self.register_buffer("numbers", numbers[numbers >= 0], persistent=False)
        self.examples = int(numbers.max()) + 1 if len(numbers) else 0
        for name in ("example_icl", "example_ft"):
            # Separate counts, since a demonstration may be in reach of some queries only.
            self._add_state(f"{name}_sum", (layers, self.examples))
            self._add_state(f"{name}_count", (layers, self.examples), torch.int64)
        self.first = {"tokens": top_tokens, "examples": top_examples}

    def baseline(
        self,
        icl: Float[Tensor, "query layer prefix"],
        query_ids: Int[Tensor, " query"],
        visible: Bool[Tensor, "query layer prefix"] | None = None,
    ) -> RandomBaseline:
        """Tau-b of in-context scores with random ones, which every comparison with the same scores can share."""
        tokens = self._tokens(icl, visible)
        return RandomBaseline(
            *(
                _taus(scores, random_vectors(query_ids, scores.shape[1:], kind="gaussian", salt=salt), seen)
                for salt, (scores, seen) in ((_TOKENS, tokens), (_EXAMPLES, self._examples(*tokens)))
            )
        )

    def update(
        self,
        icl: Float[Tensor, "query layer prefix"],
        ft: Float[Tensor, "query layer prefix"],
        query_ids: Int[Tensor, " query"],
        visible: Bool[Tensor, "query layer prefix"] | None = None,
        weights: Float[Tensor, "query replicate"] | None = None,
        baseline: RandomBaseline | None = None,
    ) -> None:
        """Add a batch of queries.

        Args:
            icl: scores in context.
            ft: inner products in fine-tuning.
            query_ids: the queries' numbers.
            visible: which prefix tokens are in reach; None where all are.
            weights: the bootstrap's, where they are drawn already.
            baseline: of the same in-context scores, where it is known already.
        """
        # Random scores do not depend on the fine-tuning, so controls with the same in-context scores share their
        # baseline.
        baseline = baseline or self.baseline(icl, query_ids, visible)
        weights = self._weights(query_ids, weights)
        # Both sides are masked alike: -inf ties what is out of reach on either.
        (icl, seen), (ft, _) = self._tokens(icl, visible), self._tokens(ft, visible)
        self._add_level("tokens", icl, ft, seen, baseline.tokens, weights)
        self._add("visible", torch.ones_like(icl[..., 0]) if seen is None else seen.double().mean(-1), weights)
        self._add_example_means(icl, ft)
        (icl, shown), (ft, _) = self._examples(icl, seen), self._examples(ft, seen)
        self._add_level("examples", icl, ft, shown, baseline.examples, weights)

    def _tokens(self, scores: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scores of the demonstration tokens, -inf where out of reach; and which are in reach."""
        scores = scores[..., self.places]
        if visible is None:
            return scores, None
        seen = visible[..., self.places]
        return scores.masked_fill(~seen, -torch.inf), seen

    def _examples(self, scores: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scores of whole demonstrations; and which have a token in reach."""
        scores = example_scores(scores, self.numbers, self.examples)
        # A log-sum-exp of -inf everywhere is -inf: no token of this demonstration is in reach.
        return scores, None if seen is None else torch.isfinite(scores)

    def _add_example_means(self, icl: Tensor, ft: Tensor) -> None:
        """Means over each demonstration's tokens; a demonstration with a token out of reach is left out."""
        for name, scores in (("example_icl", icl), ("example_ft", ft)):
            parts = [scores[..., self.numbers == number].mean(-1) for number in range(self.examples)]
            # A prompt without demonstrations has nothing to stack.
            self._add(name, torch.stack(parts, dim=-1) if parts else scores[..., :0])

    def _add_level(
        self, level: str, icl: Tensor, ft: Tensor, seen: Tensor | None, by_chance: Tensor, weights: Tensor | None
    ) -> None:
        """Taus and recall over tokens or over whole demonstrations."""
        tau, chance, top = _LEVELS[level]
        count = torch.full(icl.shape[:-1], icl.shape[-1], device=icl.device) if seen is None else seen.sum(-1)
        # "Tied" applies wherever the first reason does not: nothing else leaves a tau undefined.
        few, tied = count < 2, torch.ones_like(count, dtype=torch.bool)
        self._add(tau, _taus(icl, ft, seen), weights, reasons=(few, tied))
        self._add(chance, by_chance, weights, reasons=(few, tied))
        # All or none of what is counted would be among the first whatever the scores.
        first, shown = self.first[level], None if seen is None else seen.flatten(0, 1)
        recall = top_recall(icl.flatten(0, 1), ft.flatten(0, 1), first, shown, resolution=_ROUNDING)
        short = torch.full_like(tied, icl.shape[-1] <= first)
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
