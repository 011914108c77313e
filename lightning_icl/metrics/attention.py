"""Attention level: does in-context learning attend to the query's own tokens as fine-tuning does?

Dai et al., section 4.3 (SimAM); the difference form is that of Deutch et al. (arXiv 2311.07772).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_icl.metrics._plotting import plot_layers
from lightning_icl.metrics.forms import Form
from lightning_icl.metrics.mean import QueryMeans
from lightning_icl.metrics.similarity import Resolution, Update, cosine, update_cosine, update_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Why a head has no value for a query.
_UNMOVED = "scores among the query's own tokens cannot depend on the prompt in this layer"
_STILL_ICL = "in-context learning moved the scores among the query's own tokens by no more than rounding"
_STILL_FT = "fine-tuning moved the scores among the query's own tokens by no more than rounding"


class SimAMResult(NamedTuple):
    """Similarity of attention maps, in its forms."""

    scores: Form
    """`cos(a_ICL, a_FT)` of scores before softmax."""
    zsl: Form
    """Its baseline `cos(a_ICL, a_ZSL)`."""
    difference: Form
    """`cos(a_ICL - a_ZSL, a_FT - a_ZSL)`."""
    softmax: Form
    """`scores` of attention weights after a softmax over the query's own tokens."""
    softmax_zsl: Form
    """`zsl` of those weights."""
    softmax_difference: Form
    """`difference` of those weights."""

    @property
    def value(self) -> float:
        """The main figure."""
        return self.scores.value


def own_weights(
    scores: Float[Tensor, "query *shape token"], lengths: Int[Tensor, " query"]
) -> Float[Tensor, "query *shape token"]:
    """Softmax over each query's own tokens, in float64, which keeps differences of weights near 1; 0 beyond its length.

    >>> own_weights(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([2]))
    tensor([[0.5000, 0.5000, 0.0000]], dtype=torch.float64)
    """
    beyond = torch.arange(scores.shape[-1], device=scores.device) >= lengths[:, None]
    beyond = beyond.view(len(lengths), *[1] * (scores.dim() - 2), -1)
    # In float64: a softmax maps distinct scores to weights that may differ only in the eighth digit.
    return scores.double().masked_fill(beyond, -torch.inf).softmax(-1)


class SimAM(QueryMeans):
    """Similarity of attention maps, with its zero-shot baseline, the difference form and the softmax form.

    For each query, layer and head the cosine over the query's own tokens, averaged over queries, heads, layers.

    Update takes scores before softmax (query, layer, head, token) under zero-shot, in-context and fine-tuned
    conditions, 0 beyond each query's length, the lengths (query,), and the queries' numbers (query,)
    where there is a bootstrap. A difference that is zero up to rounding has no direction: the query has no value in
    that head. Compute gives the mean of scores before softmax, `details` a `SimAMResult`.

    Args:
        layers: number of attention layers.
        heads: query heads of each.
        unmoved_layers: layers whose scores among the query's own tokens cannot depend on what stands before them, as
            in the first layer of a model with relative positions. There `a_ICL = a_ZSL`, their difference would be
            rounding errors only, and the difference forms are undefined.
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
        kwargs: see `torchmetrics.Metric`.

    >>> metric = SimAM(layers=1, heads=1)
    >>> zsl, icl, ft = (torch.tensor([[[scores]]]) for scores in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]))
    >>> metric.update(zsl, icl, ft, torch.tensor([2]))
    >>> metric.compute()
    tensor(0.7071, dtype=torch.float64)
    >>> result = metric.details()
    >>> result.zsl.value, round(result.difference.value, 4)
    (0.0, 0.7071)
    """

    def __init__(
        self, layers: int, heads: int, unmoved_layers: Sequence[int] = (), *, replicates: int = 0, **kwargs: Any
    ) -> None:
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(SimAMResult._fields, (layers, heads))
        differences = ("difference", "softmax_difference")
        reasons = dict.fromkeys(differences, (_UNMOVED, _STILL_ICL, _STILL_FT))
        super().__init__(shapes, replicates, reasons=reasons, rounded=differences, **kwargs)
        self.unmoved_layers = list(unmoved_layers)

    def update(
        self,
        zsl: Float[Tensor, "query layer head token"],
        icl: Float[Tensor, "query layer head token"],
        ft: Float[Tensor, "query layer head token"],
        lengths: Int[Tensor, " query"],
        query_ids: Int[Tensor, " query"] | None = None,
        weights: Float[Tensor, "query replicate"] | None = None,
        resolution: Resolution | None = None,
    ) -> None:
        """Add a batch of queries.

        Args:
            zsl: scores zero-shot.
            icl: the same in context.
            ft: the same fine-tuned.
            lengths: own tokens of each query.
            query_ids: the queries' numbers, for the bootstrap.
            weights: the bootstrap's, where they are drawn already.
            resolution: what rounding leaves of a difference of scores; that of their type without.
        """
        # Drawn once and used for all six forms.
        drawn = self._weights(query_ids, weights)
        resolution = resolution or Resolution.of(torch.finfo(zsl.dtype).eps)
        views = zsl, icl, ft
        updates = update_of(icl, zsl, resolution.icl), update_of(ft, zsl, resolution.ft)
        self._add_forms(("scores", "zsl", "difference"), drawn, views, updates)
        # Rounding of a score is relative to its size, and the largest score of the row bounds it.
        largest = torch.stack([scores.abs().amax(-1) for scores in views]).amax(0)
        soft = [own_weights(scores, lengths) for scores in views]
        # An error of a score changes its weight by that share of itself.
        updates = (
            update_of(soft[1], soft[0], resolution.icl * largest),
            update_of(soft[2], soft[0], resolution.ft * largest),
        )
        self._add_forms(("softmax", "softmax_zsl", "softmax_difference"), drawn, soft, updates)

    def _add_forms(
        self, names: Sequence[str], drawn: Tensor | None, views: Sequence[Tensor], updates: tuple[Update, Update]
    ) -> None:
        zsl, icl, ft = views
        moved, learnt = updates
        self._add(names[0], cosine(icl, ft), drawn)
        self._add(names[1], cosine(icl, zsl), drawn)
        # Rounding alone would give these layers a direction, so they are masked by what is known of the model.
        unmoved = torch.zeros_like(moved.zero)
        unmoved[:, self.unmoved_layers] = True
        self._add(
            names[2],
            update_cosine(moved, learnt).masked_fill(unmoved, torch.nan),
            drawn,
            reasons=(unmoved, moved.zero, learnt.zero),
            # Errors of the two directions are independent, so they add as squares.
            rounding=torch.hypot(moved.rounding, learnt.rounding),
        )

    def details(self) -> SimAMResult:
        """All forms over all queries: per head, over heads per layer; for all processes to call, like `compute`."""
        # Metrics may hold sums of one process only; inside, they are those of all.
        with self.sync_context():
            return SimAMResult(*(self._form(name) for name in self.names))

    def plot(self, val: SimAMResult | None = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":
        """Curves over layers."""
        result = val or self.details()
        curves = {
            "SimAM": result.scores.per_layer,
            "zero-shot": result.zsl.per_layer,
            "difference": result.difference.per_layer,
        }
        return plot_layers(curves, "SimAM", ax)
