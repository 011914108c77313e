"""Attention to training tokens: do in-context learning and fine-tuning rank them alike? (Dai et al., section 4.3)"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_icl.metrics.mean import QueryMeans, mean_of_defined
from lightning_icl.metrics.null import random_vectors
from lightning_icl.metrics.plotting import plot_layers
from lightning_icl.metrics.rank import kendall_taus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Scores of float32 sums that are equal in exact arithmetic come out this close, relative to the largest of their row.
_ROUNDING = 2e-6
# Tell the random scores apart.
_TOKENS, _EXAMPLES = 2, 3


class KendallResult(NamedTuple):
    """Rank correlation of attention to training tokens: means over layers, and per layer (layer,)."""

    value: float
    """Tau-b over demonstration tokens."""
    random: float
    """Its baseline against random scores."""
    example: float
    """Tau-b over whole demonstrations, by their share of a softmax over tokens."""
    example_random: float
    """Its baseline against random scores."""
    top_tokens: float
    """Share of the first `top_tokens` tokens of one order that are among the first of the other."""
    top_examples: float
    """The same of demonstrations."""
    visible: float
    """Share of demonstration tokens that the model's sliding windows leave in reach."""
    per_layer: Tensor
    random_per_layer: Tensor
    example_per_layer: Tensor
    example_random_per_layer: Tensor
    top_tokens_per_layer: Tensor
    top_examples_per_layer: Tensor
    visible_per_layer: Tensor
    example_icl: Tensor
    """Mean score of each demonstration's tokens in context (layer, example)."""
    example_ft: Tensor
    """Mean inner product of each demonstration's tokens with the query's in fine-tuning (layer, example)."""


class RandomTaus(NamedTuple):
    """The baselines of a batch of queries: tau-b of in-context scores with random ones (query, layer)."""

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
    parts = [scores[..., token_example == number].double().logsumexp(-1) for number in range(examples)]
    return torch.stack(parts, dim=-1)


def top_recall(
    one: Float[Tensor, "*shape item"], other: Float[Tensor, "*shape item"], first: int
) -> Float[Tensor, "*shape"]:
    """Share of the `first` highest items of one that are among the `first` highest of the other.

    NaN where there are no more items than that, since all would be found.

    >>> top_recall(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([3.0, 1.0, 2.0]), 2)
    tensor(0.5000)
    """
    if first >= one.shape[-1]:
        return one.new_full(one.shape[:-1], torch.nan)
    chosen = torch.zeros_like(one).scatter_(-1, one.topk(first).indices, 1.0)
    return chosen.gather(-1, other.topk(first).indices).mean(-1)


class Kendall(QueryMeans):
    """Kendall rank correlation (tau-b) between attention to training tokens in ICL and in fine-tuning.

    In-context order: scores before softmax from the probe token to each demonstration token, summed over heads.
    Fine-tuning order: inner product of the probe token's query vector with those recorded in training. Every query
    counts. Scores that differ by float32 rounding alone are ties, as they are in exact arithmetic: at the first layer
    of a model with relative positions, a token has the same query vector wherever it stands.

    Update takes both scores at all prefix tokens (query, layer, prefix), the queries' numbers (query,), which seed
    the baseline and the bootstrap, and which prefix tokens are visible where a sliding window hides some. Compute gives
    a `KendallResult`.

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
    >>> round(metric.compute().value, 4)
    0.3333
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
        names = ("value", "random", "example", "example_random", "top_tokens", "top_examples", "visible")
        super().__init__(dict.fromkeys(names, (layers,)), replicates, **kwargs)
        numbers = torch.tensor(token_example, dtype=torch.int64)
        self.places: Tensor
        self.numbers: Tensor
        self.register_buffer("places", (numbers >= 0).nonzero().flatten(), persistent=False)
        self.register_buffer("numbers", numbers[numbers >= 0], persistent=False)
        self.examples = int(numbers.max()) + 1 if len(numbers) else 0
        for name in ("example_icl", "example_ft"):
            zeros = torch.zeros(layers, self.examples, dtype=torch.float64)
            self.add_state(f"{name}_sum", default=zeros, dist_reduce_fx="sum")
            self.add_state(f"{name}_count", default=zeros.long(), dist_reduce_fx="sum")
        self.first = {"tokens": top_tokens, "examples": top_examples}
        self.random_taus: RandomTaus | None = None
        """Baselines of the last batch, for other metrics that compare the same in-context scores."""

    def update(
        self,
        icl: Float[Tensor, "query layer prefix"],
        ft: Float[Tensor, "query layer prefix"],
        query_ids: Int[Tensor, " query"],
        visible: Bool[Tensor, "query layer prefix"] | None = None,
        weights: Float[Tensor, "query replicate"] | None = None,
        random: RandomTaus | None = None,
    ) -> None:
        """Add a batch of queries, with the bootstrap's `weights` and the baselines where they are known already."""
        icl, ft = icl[..., self.places], ft[..., self.places]
        seen = None if visible is None else visible[..., self.places]
        weights = self._weights(query_ids, weights)
        value, by_chance = self._taus(icl, ft, seen, query_ids, _TOKENS, random.tokens if random else None)
        self._add("value", value, weights)
        self._add("random", by_chance, weights)
        self._add("visible", torch.ones_like(icl[..., 0]) if seen is None else seen.double().mean(-1), weights)
        if seen is not None:
            icl, ft = icl.masked_fill(~seen, -torch.inf), ft.masked_fill(~seen, -torch.inf)
        self._add("top_tokens", self._recall(icl, ft, self.first["tokens"], seen), weights)
        self._add_example_means(icl, ft)
        self.random_taus = RandomTaus(by_chance, self._add_examples(icl, ft, query_ids, weights, random))

    def _add_example_means(self, icl: Tensor, ft: Tensor) -> None:
        """Means over each demonstration's tokens; a demonstration with a token out of reach is left out."""
        for name, scores in (("example_icl", icl), ("example_ft", ft)):
            parts = [scores[..., self.numbers == number].mean(-1) for number in range(self.examples)]
            self._add(name, torch.stack(parts, dim=-1) if parts else scores[..., :0])

    def _add_examples(
        self, icl: Tensor, ft: Tensor, query_ids: Tensor, weights: Tensor | None, random: RandomTaus | None
    ) -> Tensor:
        icl, ft = (example_scores(scores, self.numbers, self.examples) for scores in (icl, ft))
        seen = torch.isfinite(icl)
        value, by_chance = self._taus(icl, ft, seen, query_ids, _EXAMPLES, random.examples if random else None)
        self._add("example", value, weights)
        self._add("example_random", by_chance, weights)
        self._add("top_examples", self._recall(icl, ft, self.first["examples"], seen), weights)
        return by_chance

    @staticmethod
    def _taus(
        icl: Tensor, ft: Tensor, seen: Tensor | None, query_ids: Tensor, salt: int, by_chance: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Tau of in-context scores with those of fine-tuning and with random ones, if not known (query, layer)."""
        others = [ft]
        if by_chance is None:
            others.append(random_vectors(query_ids, icl.shape[1:], kind="gaussian", salt=salt))
        shown = None if seen is None else seen.flatten(0, 1)
        flat = [scores.flatten(0, 1) for scores in others]
        taus = kendall_taus(icl.flatten(0, 1), flat, shown, resolution=_ROUNDING).view(-1, *icl.shape[:-1])
        return taus[0], taus[1] if by_chance is None else by_chance

    @staticmethod
    def _recall(one: Tensor, other: Tensor, first: int, seen: Tensor | None) -> Tensor:
        recall = top_recall(one, other, first)
        return recall if seen is None else recall.masked_fill(seen.sum(-1) <= first, torch.nan)

    def compute(self) -> KendallResult:
        """Means over queries per layer, and over layers."""
        names = ("value", "random", "example", "example_random", "top_tokens", "top_examples", "visible")
        per_layer = {name: self._mean(name) for name in names}
        fields: dict[str, Any] = {
            **{name: mean_of_defined(values) for name, values in per_layer.items()},
            **{"per_layer" if name == "value" else f"{name}_per_layer": values for name, values in per_layer.items()},
        }
        shares: dict[str, Any] = {name: self._mean(name) for name in ("example_icl", "example_ft")}
        return KendallResult(**fields, **shares)

    def plot(self, val: KendallResult | None = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":
        """Curves over layers."""
        result = val or self.compute()
        curves = {"Kendall": result.per_layer, "random": result.random_per_layer, "examples": result.example_per_layer}
        return plot_layers(curves, "Kendall rank correlation", ax)
