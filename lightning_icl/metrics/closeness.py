"""Prediction level: how close one view's predictions are to another's, query by query (definitions, section 8)."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from lightning_icl.metrics.bootstrap import Bootstrapped, bootstrapped_share, percentile_interval
from lightning_icl.metrics.mean import batch_weights


class ClosenessResult(NamedTuple):
    """How close another view is to the reference."""

    agreement: float
    """Share of queries for which both choose the same answer, right or wrong."""
    kl: float
    """Divergence from the reference's distribution over the vocabulary, of the token after the prompt, in nats."""
    answer_kl: float
    """Divergence from the reference's distribution over the answers, in nats."""
    margin_correlation: float
    """Correlation over queries of an answer's margin, its score above the other answers' mean, averaged over answers;
    NaN where a margin does not vary."""


def divergence(
    reference: Float[Tensor, "*shape outcome"], other: Float[Tensor, "*shape outcome"]
) -> Float[Tensor, "*shape"]:
    """`Σ p (log p − log p')` of two distributions given by their logits, in nats; outcomes of logit -inf are none.

    >>> divergence(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0]))
    tensor(0.)
    """
    logs, other_logs = reference.log_softmax(-1), other.log_softmax(-1)
    # p log p is 0 at p = 0, but -inf - -inf is NaN.
    present = torch.isfinite(logs)
    difference = torch.where(present, logs - other_logs, 0.0)
    return (logs.exp() * difference).sum(-1)


def margins(scores: Float[Tensor, "query answer"]) -> Float[Tensor, "query answer"]:
    """Each answer's score minus the mean of the query's other answers; NaN for an answer the query lacks."""
    present = torch.isfinite(scores)
    others = present.sum(-1, keepdim=True) - 1
    total = torch.where(present, scores, 0.0).sum(-1, keepdim=True)
    return torch.where(present, scores - (total - scores) / others, torch.nan)


class Closeness(Metric):
    """How close one view's predictions are to those of a reference.

    Update takes answer scores (query, answer) of reference and other view, their logits over the vocabulary (query,
    token), and the queries' numbers (query,) where there is a bootstrap. Compute gives
    the divergence over the vocabulary, `details` a `ClosenessResult`.

    Args:
        answers: most answers that a query has.
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
        kwargs: see `torchmetrics.Metric`.

    >>> metric = Closeness(answers=2)
    >>> scores, logits = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]]), torch.zeros(2, 5)
    >>> metric.update(scores, 2 * scores, logits, logits)
    >>> metric.details().agreement, round(metric.details().margin_correlation, 6)
    (1.0, 1.0)
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    sums: Tensor
    moments: Tensor
    replicate_sums: Tensor
    replicate_moments: Tensor

    def __init__(self, answers: int, *, replicates: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replicates = replicates
        # Sums only, so that a correlation over all queries streams and adds up over processes.
        # Queries, agreeing ones, and the two divergences; of each answer 1, x, y, x², y² and xy of its two margins.
        for name, shape in (("sums", (4,)), ("moments", (answers, 6))):
            self.add_state(name, default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
            if replicates:
                zeros = torch.zeros(replicates, *shape, dtype=torch.float64)
                self.add_state(f"replicate_{name}", default=zeros, dist_reduce_fx="sum")

    def update(
        self,
        reference: Float[Tensor, "query answer"],
        other: Float[Tensor, "query answer"],
        reference_logits: Float[Tensor, "query token"],
        other_logits: Float[Tensor, "query token"],
        query_ids: Int[Tensor, " query"] | None = None,
        weights: Float[Tensor, "query replicate"] | None = None,
    ) -> None:
        """Add a batch of queries, with the bootstrap's `weights` where they are drawn already."""
        reference, other = reference.double(), other.double()
        agreeing = (reference.argmax(-1) == other.argmax(-1)).double()
        vocabulary = divergence(reference_logits.double(), other_logits.double())
        sums = torch.stack([torch.ones_like(agreeing), agreeing, vocabulary, divergence(reference, other)], -1)
        moments = self._moments(margins(reference), margins(other))
        self.sums += sums.sum(0)
        self.moments += moments.sum(0)
        # The same weights for every figure pair their replicates.
        weights = batch_weights(self, self.replicates, query_ids, weights)
        if weights is not None:
            self.replicate_sums += weights.T @ sums
            self.replicate_moments += torch.einsum("qr,qam->ram", weights, moments)

    def _moments(self, one: Tensor, other: Tensor) -> Tensor:
        """(query, answer, 6); queries of a batch may all have fewer answers than others of the data."""
        moments = torch.stack([torch.ones_like(one), one, other, one**2, other**2, one * other], -1)
        # Multiple-choice rows have different numbers of answers; what is missing must not count as a case.
        moments = torch.where(torch.isfinite(one + other).unsqueeze(-1), moments, 0.0)
        return torch.nn.functional.pad(moments, (0, 0, 0, self.moments.shape[0] - moments.shape[1]))

    def compute(self) -> Tensor:
        """The divergence over the vocabulary; NaN for no queries."""
        return self.sums[2] / self.sums[0]

    def details(self) -> ClosenessResult:
        """All figures over all queries, NaN for none; for all processes to call, like `compute`."""
        with self.sync_context():
            # One transfer from the device instead of four.
            queries, *totals = self.sums.tolist()
            correlation = float(_correlation(self.moments))
        agreement, kl, answer_kl = (total / queries if queries else float("nan") for total in totals)
        return ClosenessResult(agreement, kl, answer_kl, correlation)

    def bootstrap(self) -> dict[str, Bootstrapped]:
        """Every figure with replicates and interval, by name; empty without replicates, for all processes to call."""
        if not self.replicates:
            return {}
        with self.sync_context():
            sums, drawn = self.sums.cpu(), self.replicate_sums.cpu()
            correlation, correlations = _correlation(self.moments.cpu()), _correlation(self.replicate_moments.cpu())
        # One query has no spread, and an interval of it would be a point.
        several = sums[0] > 1
        figures = {"agreement": bootstrapped_share(sums[1], sums[0], drawn[:, 1], drawn[:, 0])}
        estimates = {"kl": sums[2] / sums[0], "answer_kl": sums[3] / sums[0], "margin_correlation": correlation}
        replicates = (drawn[:, 2] / drawn[:, 0], drawn[:, 3] / drawn[:, 0], correlations)
        for (name, estimate), values in zip(estimates.items(), replicates, strict=True):
            figures[name] = Bootstrapped(estimate, values, percentile_interval(values).where(several, torch.nan))
        return figures


def _correlation(moments: Float[Tensor, "*shape answer 6"]) -> Float[Tensor, "*shape"]:
    """Pearson's correlation from sums, averaged over the answers in which it is defined."""
    count, one, other, square, other_square, product = moments.unbind(-1)
    # A variance below its own rounding is none: margins of equal scores differ in their last bits.
    variance, other_variance = square - one**2 / count, other_square - other**2 / count
    varying = (variance > 1e-12 * square) & (other_variance > 1e-12 * other_square)
    correlation = (product - one * other / count) / (variance * other_variance).sqrt()
    return torch.where(varying, correlation, torch.nan).nanmean(-1)
