"""Attention level: does in-context learning attend to the query's own tokens as fine-tuning does?

Dai et al., section 4.3 (SimAM); the difference form is that of Deutch et al. (arXiv 2311.07772).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_icl.metrics.mean import QueryMeans, mean_of_defined
from lightning_icl.metrics.plotting import plot_layers
from lightning_icl.metrics.similarity import cosine

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMS = ("value", "zsl", "difference", "softmax", "softmax_zsl", "softmax_difference")


class SimAMResult(NamedTuple):
    """Similarity of attention maps: means over heads, queries and layers; per layer; per head (layer, head)."""

    value: float
    """`cos(a_ICL, a_FT)` of scores before softmax."""
    zsl: float
    """Its baseline `cos(a_ICL, a_ZSL)`."""
    difference: float
    """`cos(a_ICL - a_ZSL, a_FT - a_ZSL)`."""
    softmax: float
    """`value` of attention weights after a softmax over the query's own tokens."""
    softmax_zsl: float
    """`zsl` of those weights."""
    softmax_difference: float
    """`difference` of those weights."""
    per_layer: Tensor
    zsl_per_layer: Tensor
    difference_per_layer: Tensor
    softmax_per_layer: Tensor
    softmax_zsl_per_layer: Tensor
    softmax_difference_per_layer: Tensor
    per_head: Tensor
    zsl_per_head: Tensor
    difference_per_head: Tensor
    softmax_per_head: Tensor
    softmax_zsl_per_head: Tensor
    softmax_difference_per_head: Tensor


def own_weights(
    scores: Float[Tensor, "query *shape token"], lengths: Int[Tensor, " query"]
) -> Float[Tensor, "query *shape token"]:
    """Softmax over each query's own tokens; 0 beyond its length.

    >>> own_weights(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([2]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    beyond = torch.arange(scores.shape[-1], device=scores.device) >= lengths[:, None]
    beyond = beyond.view(len(lengths), *[1] * (scores.dim() - 2), -1)
    return scores.masked_fill(beyond, -torch.inf).softmax(-1)


class SimAM(QueryMeans):
    """Similarity of attention maps, with its zero-shot baseline, the difference form and the softmax form.

    For each query, layer and head the cosine over the query's own tokens, averaged over queries, heads, layers.

    Update takes scores before softmax (query, layer, head, token) under zero-shot, in-context and fine-tuned
    conditions, 0 beyond each query's length, the lengths (query,), and the queries' numbers (query,)
    where there is a bootstrap. Compute gives a `SimAMResult`.

    Args:
        layers: number of attention layers.
        heads: query heads of each.
        unmoved_layers: layers whose scores among the query's own tokens cannot depend on what stands before them, as
            in the first layer of a model with relative positions. There `a_ICL = a_ZSL`, a difference would be one
            of rounding errors, and the difference forms are undefined.
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
        kwargs: see `torchmetrics.Metric`.

    >>> metric = SimAM(layers=1, heads=1)
    >>> zsl, icl, ft = (torch.tensor([[[scores]]]) for scores in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]))
    >>> metric.update(zsl, icl, ft, torch.tensor([2]))
    >>> result = metric.compute()
    >>> round(result.value, 4), result.zsl, round(result.difference, 4)
    (0.7071, 0.0, 0.7071)
    """

    def __init__(
        self, layers: int, heads: int, unmoved_layers: Sequence[int] = (), *, replicates: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(dict.fromkeys(_FORMS, (layers, heads)), replicates, **kwargs)
        self.unmoved_layers = list(unmoved_layers)

    def update(
        self,
        zsl: Float[Tensor, "query layer head token"],
        icl: Float[Tensor, "query layer head token"],
        ft: Float[Tensor, "query layer head token"],
        lengths: Int[Tensor, " query"],
        query_ids: Int[Tensor, " query"] | None = None,
        weights: Float[Tensor, "query replicate"] | None = None,
    ) -> None:
        """Add a batch of queries, with the bootstrap's `weights` where they are drawn already."""
        drawn = self._weights(query_ids, weights)
        self._add_forms("", drawn, zsl, icl, ft)
        self._add_forms("softmax", drawn, *(own_weights(scores, lengths) for scores in (zsl, icl, ft)))

    def _add_forms(self, prefix: str, drawn: Tensor | None, zsl: Tensor, icl: Tensor, ft: Tensor) -> None:
        difference = cosine(icl - zsl, ft - zsl)
        difference[:, self.unmoved_layers] = torch.nan
        self._add(prefix or "value", cosine(icl, ft), drawn)
        self._add(f"{prefix}_zsl".lstrip("_"), cosine(icl, zsl), drawn)
        self._add(f"{prefix}_difference".lstrip("_"), difference, drawn)

    def compute(self) -> SimAMResult:
        """Means over queries per head, over heads per layer, and over layers."""
        per_head = {form: self._mean(form) for form in _FORMS}
        per_layer = {form: values.nanmean(-1) for form, values in per_head.items()}
        fields: dict[str, Any] = {form: mean_of_defined(values) for form, values in per_layer.items()}
        fields |= {
            ("" if form == "value" else f"{form}_") + suffix: values
            for suffix, means in (("per_layer", per_layer), ("per_head", per_head))
            for form, values in means.items()
        }
        return SimAMResult(**fields)

    def plot(self, val: SimAMResult | None = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":
        """Curves over layers."""
        result = val or self.compute()
        curves = {
            "SimAM": result.per_layer,
            "zero-shot": result.zsl_per_layer,
            "difference": result.difference_per_layer,
        }
        return plot_layers(curves, "SimAM", ax)
