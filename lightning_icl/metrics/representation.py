"""Representation level: do in-context learning and fine-tuning move attention outputs the same way?

Dai et al., section 4.3 (SimAOU); the raw form is that of Deutch et al. (arXiv 2311.07772).
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from lightning_icl.metrics.mean import QueryMeans, mean_of_defined
from lightning_icl.metrics.null import random_vectors
from lightning_icl.metrics.plotting import plot_layers
from lightning_icl.metrics.similarity import cosine, normalised

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class SimAOUResult(NamedTuple):
    """Similarity of attention-output updates: overall means over layers, and per layer (layer,)."""

    value: float
    """As published: outputs are normalised before they are subtracted."""
    raw: float
    """Without that normalisation."""
    random: float
    """`value` with the fine-tuning update replaced by a Gaussian vector."""
    random_uniform: float
    """The same with a vector uniform in [0, 1), as the authors' program draws it."""
    raw_random: float
    """`raw` with the fine-tuning update replaced by a Gaussian vector."""
    raw_random_uniform: float
    """The same with a vector uniform in [0, 1)."""
    per_layer: Tensor
    raw_per_layer: Tensor
    random_per_layer: Tensor
    random_uniform_per_layer: Tensor


def update_similarity(
    zsl: Float[Tensor, "*shape width"], icl: Float[Tensor, "*shape width"], ft: Float[Tensor, "*shape width"]
) -> Float[Tensor, "*shape"]:
    """`cos(u(icl) - u(zsl), u(ft) - u(zsl))` with `u(v) = v / ||v||`; NaN where an update is zero.

    >>> import torch
    >>> zsl, icl, ft = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([-3.0, 0.0])
    >>> update_similarity(zsl, icl, ft)
    tensor(0.7071)
    """
    base = normalised(zsl)
    return cosine(normalised(icl) - base, normalised(ft) - base)


def raw_update_similarity(
    zsl: Float[Tensor, "*shape width"], icl: Float[Tensor, "*shape width"], ft: Float[Tensor, "*shape width"]
) -> Float[Tensor, "*shape"]:
    """`cos(icl - zsl, ft - zsl)`; NaN where an update is zero."""
    return cosine(icl - zsl, ft - zsl)


class SimAOU(QueryMeans):
    """Similarity of attention-output updates, normalised and raw, with both random nulls.

    For each query and layer `cos(u(h_ICL) - u(h_ZSL), u(h_FT) - u(h_ZSL))`, averaged over queries, then over layers.
    Normalising first lets even unrelated updates score high, so the raw form is always there too.

    Update takes attention outputs (query, layer, width) under zero-shot, in-context and fine-tuned conditions, and
    the queries' numbers (query,), which seed the nulls and the bootstrap. Compute gives a `SimAOUResult`.

    Args:
        layers: number of attention layers.
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
        kwargs: see `torchmetrics.Metric`.

    >>> import torch
    >>> metric = SimAOU(layers=1)
    >>> zsl, icl, ft = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 1.0]]])
    >>> metric.update(zsl, icl, ft, torch.tensor([0]))
    >>> result = metric.compute()
    >>> round(result.value, 4), round(result.raw, 4)
    (0.9239, 0.7071)
    """

    def __init__(self, layers: int, *, replicates: int = 0, **kwargs: Any) -> None:
        names = ("value", "raw", "random", "random_uniform", "raw_random", "raw_random_uniform")
        super().__init__(dict.fromkeys(names, (layers,)), replicates, **kwargs)

    def update(
        self,
        zsl: Float[Tensor, "query layer width"],
        icl: Float[Tensor, "query layer width"],
        ft: Float[Tensor, "query layer width"],
        query_ids: Int[Tensor, " query"],
        weights: Float[Tensor, "query replicate"] | None = None,
    ) -> None:
        """Add a batch of queries, with the bootstrap's `weights` where they are drawn already."""
        weights = self._weights(query_ids, weights)
        self._add("value", update_similarity(zsl, icl, ft), weights)
        self._add("raw", raw_update_similarity(zsl, icl, ft), weights)
        shape = tuple(zsl.shape[1:])
        gaussian = random_vectors(query_ids, shape, kind="gaussian", salt=0)
        uniform = random_vectors(query_ids, shape, kind="uniform", salt=1)
        moved = normalised(icl) - normalised(zsl)
        self._add("random", cosine(moved, gaussian), weights)
        self._add("random_uniform", cosine(moved, uniform), weights)
        self._add("raw_random", cosine(icl - zsl, gaussian), weights)
        self._add("raw_random_uniform", cosine(icl - zsl, uniform), weights)

    def compute(self) -> SimAOUResult:
        """Means over queries per layer, and over layers."""
        return SimAOUResult(
            value=mean_of_defined(self._mean("value")),
            raw=mean_of_defined(self._mean("raw")),
            random=mean_of_defined(self._mean("random")),
            random_uniform=mean_of_defined(self._mean("random_uniform")),
            raw_random=mean_of_defined(self._mean("raw_random")),
            raw_random_uniform=mean_of_defined(self._mean("raw_random_uniform")),
            per_layer=self._mean("value"),
            raw_per_layer=self._mean("raw"),
            random_per_layer=self._mean("random"),
            random_uniform_per_layer=self._mean("random_uniform"),
        )

    def plot(self, val: SimAOUResult | None = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":
        """Curves over layers."""
        result = val or self.compute()
        curves = {
            "SimAOU": result.per_layer,
            "raw": result.raw_per_layer,
            "random": result.random_per_layer,
            "random, uniform": result.random_uniform_per_layer,
        }
        return plot_layers(curves, "SimAOU", ax)
