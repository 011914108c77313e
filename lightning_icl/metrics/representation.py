"""Representation level: do in-context learning and fine-tuning move attention outputs the same way?

Dai et al., section 4.3 (SimAOU); the raw form is that of Deutch et al. (arXiv 2311.07772).
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_icl.metrics._null import random_vectors
from lightning_icl.metrics._plotting import plot_layers
from lightning_icl.metrics.forms import Form
from lightning_icl.metrics.mean import QueryMeans
from lightning_icl.metrics.similarity import Resolution, cosine, normalised, update_cosine, update_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Why a query has no value at a layer.
_STILL_ICL = "in-context learning moved the attention output by no more than rounding, or no demonstration is in reach"
_STILL_FT = "fine-tuning moved the attention output by no more than rounding"


class SimAOUResult(NamedTuple):
    """Similarity of attention-output updates, in its forms."""

    normalised: Form
    """As published: outputs are normalised before they are subtracted."""
    raw: Form
    """Without that normalisation."""
    random: Form
    """`normalised` with the fine-tuning update replaced by a Gaussian vector."""
    random_uniform: Form
    """The same with a vector uniform in [0, 1), as the authors' program draws it."""
    raw_random: Form
    """`raw` with the fine-tuning update replaced by a Gaussian vector."""
    raw_random_uniform: Form
    """The same with a vector uniform in [0, 1)."""

    @property
    def value(self) -> float:
        """The main figure."""
        return self.normalised.value


def update_similarity(
    zsl: Float[Tensor, "*shape width"], icl: Float[Tensor, "*shape width"], ft: Float[Tensor, "*shape width"]
) -> Float[Tensor, "*shape"]:
    """`cos(u(icl) - u(zsl), u(ft) - u(zsl))` with `u(v) = v / ||v||`; NaN where an update is zero up to rounding.

    >>> import torch
    >>> zsl, icl, ft = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([-3.0, 0.0])
    >>> update_similarity(zsl, icl, ft)
    tensor(0.7071)
    """
    # Unit vectors of nearly equal length differ mostly in direction, which is why the published form scores high.
    return raw_update_similarity(normalised(zsl), normalised(icl), normalised(ft))


def raw_update_similarity(
    zsl: Float[Tensor, "*shape width"], icl: Float[Tensor, "*shape width"], ft: Float[Tensor, "*shape width"]
) -> Float[Tensor, "*shape"]:
    """`cos(icl - zsl, ft - zsl)`; NaN where an update is zero up to rounding."""
    return update_cosine(update_of(icl, zsl), update_of(ft, zsl))


class SimAOU(QueryMeans):
    """Similarity of attention-output updates, normalised and raw, with both random baselines.

    For each query and layer `cos(u(h_ICL) - u(h_ZSL), u(h_FT) - u(h_ZSL))`, averaged over queries, then over layers.
    Normalising first lets even unrelated updates score high, so the raw form is always there too.

    Update takes attention outputs (query, layer, width) under zero-shot, in-context and fine-tuned conditions, and
    the queries' numbers (query,), which seed the baselines and the bootstrap. An update that is zero up to rounding has
    no direction: the query has no value at that layer. Compute gives the published form's mean, `details` a
    `SimAOUResult`.

    Args:
        layers: number of attention layers.
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
        kwargs: see `torchmetrics.Metric`.

    >>> import torch
    >>> metric = SimAOU(layers=1)
    >>> zsl, icl, ft = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 1.0]]])
    >>> metric.update(zsl, icl, ft, torch.tensor([0]))
    >>> metric.compute()
    tensor(0.9239, dtype=torch.float64)
    >>> round(metric.details().raw.value, 4)
    0.7071
    """

    def __init__(self, layers: int, *, replicates: int = 0, **kwargs: Any) -> None:
        compared, baselines = ("normalised", "raw"), ("random", "random_uniform", "raw_random", "raw_random_uniform")
        reasons = {**dict.fromkeys(compared, (_STILL_ICL, _STILL_FT)), **dict.fromkeys(baselines, (_STILL_ICL,))}
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*compared, *baselines), (layers,))
        super().__init__(shapes, replicates, reasons=reasons, rounded=compared, **kwargs)

    def update(
        self,
        zsl: Float[Tensor, "query layer width"],
        icl: Float[Tensor, "query layer width"],
        ft: Float[Tensor, "query layer width"],
        query_ids: Int[Tensor, " query"],
        weights: Float[Tensor, "query replicate"] | None = None,
        resolution: Resolution | None = None,
    ) -> None:
        """Add a batch of queries.

        Args:
            zsl: attention outputs zero-shot.
            icl: the same in context.
            ft: the same fine-tuned.
            query_ids: the queries' numbers.
            weights: the bootstrap's, where they are drawn already.
            resolution: what rounding leaves of a difference; that of the outputs' type without.
        """
        weights = self._weights(query_ids, weights)
        resolution = resolution or Resolution.of(torch.finfo(zsl.dtype).eps)
        shape = tuple(zsl.shape[1:])
        # Different salts, or the two baselines would be functions of the same bits.
        gaussian = random_vectors(query_ids, shape, kind="gaussian", salt=0)
        uniform = random_vectors(query_ids, shape, kind="uniform", salt=1)
        units = [normalised(outputs) for outputs in (zsl, icl, ft)]
        for form, (before, context, tuned) in (("normalised", units), ("raw", (zsl, icl, ft))):
            moved, learnt = update_of(context, before, resolution.icl), update_of(tuned, before, resolution.ft)
            still = moved.zero, learnt.zero
            self._add(
                form,
                update_cosine(moved, learnt),
                weights,
                reasons=still,
                rounding=torch.hypot(moved.rounding, learnt.rounding),
            )
            baseline = "random" if form == "normalised" else "raw_random"
            for name, vectors in ((baseline, gaussian), (f"{baseline}_uniform", uniform)):
                # A random vector is never zero: only the in-context update can leave the baseline undefined.
                values = cosine(moved.vector, vectors).masked_fill(moved.zero, torch.nan)
                self._add(name, values, weights, reasons=still[:1])

    def details(self) -> SimAOUResult:
        """All forms over all queries; for all processes to call, like `compute`."""
        with self.sync_context():
            return SimAOUResult(*(self._form(name) for name in self.names))

    def plot(self, val: SimAOUResult | None = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":
        """Curves over layers."""
        result = val or self.details()
        curves = {
            "SimAOU": result.normalised.per_layer,
            "raw": result.raw.per_layer,
            "random": result.random.per_layer,
            "random, uniform": result.random_uniform.per_layer,
        }
        return plot_layers(curves, "SimAOU", ax)
