"""Prediction level: does in-context learning correct what fine-tuning corrects? (Dai et al., section 4.3)"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

from lightning_icl.metrics._plotting import new_axes
from lightning_icl.metrics.bootstrap import Bootstrapped, bootstrapped_share
from lightning_icl.metrics.mean import batch_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Rec2FTPResult(NamedTuple):
    """What three views of the same queries agree on. Shares are NaN where their denominator is 0."""

    value: float
    """Rec2FTP: of the queries that fine-tuning corrects, the share that in-context learning corrects too."""
    corrected_by_ft: int
    """Queries that zero-shot gets wrong and fine-tuning right."""
    corrected_by_icl: int
    """Queries that zero-shot gets wrong and in-context learning right."""
    corrected_by_both: int
    """Queries that zero-shot gets wrong and both others right."""
    reverse_recall: float
    """Of the queries that in-context learning corrects, the share that fine-tuning corrects too."""
    agreement: float
    """Share of queries for which in-context learning and fine-tuning choose the same answer, right or wrong."""
    right_table: Tensor
    """Counts of queries by who was right: `right_table[zsl, icl, ft]` with 0 for wrong and 1 for right."""


def right_table(
    zsl: Bool[Tensor, " query"], icl: Bool[Tensor, " query"], ft: Bool[Tensor, " query"]
) -> Int[Tensor, "2 2 2"]:
    """Counts of queries by who was right, axes zero-shot, in-context, fine-tuned.

    >>> yes, no = torch.tensor([True, True]), torch.tensor([False, True])
    >>> right_table(no, yes, yes)[0, 1, 1]
    tensor(1)
    """
    # Three bits to one of eight cells.
    cell = 4 * zsl.long() + 2 * icl.long() + ft.long()
    return torch.bincount(cell, minlength=8).view(2, 2, 2)


def share(part: int, whole: int) -> float:
    """`part / whole`, NaN for an empty whole.

    >>> share(1, 4), share(0, 0)
    (0.25, nan)
    """
    return part / whole if whole else float("nan")


def _shares(table: Tensor, agreeing: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """Name, part and whole of each share, from tables (*shape, 2, 2, 2) and counts (*shape)."""
    # Zero-shot wrong, both others right.
    both = table[..., 0, 1, 1]
    return [
        ("value", both, table[..., 0, :, 1].sum(-1)),
        ("reverse_recall", both, table[..., 0, 1, :].sum(-1)),
        ("agreement", agreeing, table.sum((-3, -2, -1))),
    ]


class Rec2FTP(Metric):
    """Recall to fine-tuning predictions, with everything else that can be said of who was right.

    `#{ZSL wrong, FT right, ICL right} / #{ZSL wrong, FT right}`; NaN when fine-tuning corrects nothing. Ties between
    answer scores go to the first answer.

    Update takes answer scores (query, answer) under zero-shot, in-context and fine-tuned conditions, and gold label
    numbers (query,), and the queries' numbers (query,) where there is a bootstrap. Compute gives the recall,
    `details` a `Rec2FTPResult`.

    Args:
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
        kwargs: see `torchmetrics.Metric`.

    >>> metric = Rec2FTP()
    >>> wrong, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> metric.update(wrong, right, right, torch.tensor([1]))
    >>> metric.update(wrong, wrong, right, torch.tensor([1]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    >>> metric.details().corrected_by_ft
    2
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    table: Tensor
    agreeing: Tensor
    replicate_table: Tensor
    replicate_agreeing: Tensor

    def __init__(self, *, replicates: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replicates = replicates
        self.add_state("table", default=torch.zeros(2, 2, 2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("agreeing", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        if replicates:
            # float64, since a replicate adds weights and a whole number below 2^53 is exact in it.
            zeros = torch.zeros(replicates, 2, 2, 2, dtype=torch.float64)
            self.add_state("replicate_table", default=zeros, dist_reduce_fx="sum")
            self.add_state("replicate_agreeing", default=zeros[:, 0, 0, 0].clone(), dist_reduce_fx="sum")

    def update(
        self,
        zsl: Float[Tensor, "query answer"],
        icl: Float[Tensor, "query answer"],
        ft: Float[Tensor, "query answer"],
        gold: Int[Tensor, " query"],
        query_ids: Int[Tensor, " query"] | None = None,
        weights: Float[Tensor, "query replicate"] | None = None,
    ) -> None:
        """Count a batch of queries, with the bootstrap's `weights` where they are drawn already."""
        # Of equal scores, argmax takes the first, under all three conditions alike.
        chosen = [scores.argmax(-1) for scores in (zsl, icl, ft)]
        right, agreeing = [choice == gold for choice in chosen], chosen[1] == chosen[2]
        self.table += right_table(*right)
        self.agreeing += agreeing.sum()
        weights = batch_weights(self, self.replicates, query_ids, weights)
        if weights is not None:
            # The table again, one row per query, so that the weights can multiply it.
            cell = one_hot(4 * right[0].long() + 2 * right[1].long() + right[2].long(), 8)
            self.replicate_table += (weights.T @ cell.to(weights.dtype)).view(-1, 2, 2, 2)
            self.replicate_agreeing += weights.T @ agreeing.to(weights.dtype)

    def compute(self) -> Tensor:
        """Rec2FTP over all queries, a tensor of one number; NaN where fine-tuning corrected nothing."""
        # A tensor and not a float: Lightning logs only tensors from a metric's `compute`.
        return torch.tensor(self._details().value, dtype=torch.float64, device=self.table.device)

    def details(self) -> Rec2FTPResult:
        """The shares and counts over all queries; for all processes to call, like `compute`."""
        with self.sync_context():
            return self._details()

    def _details(self) -> Rec2FTPResult:
        by_ft, by_icl = int(self.table[0, :, 1].sum()), int(self.table[0, 1, :].sum())
        both = int(self.table[0, 1, 1])
        return Rec2FTPResult(
            value=share(both, by_ft),
            corrected_by_ft=by_ft,
            corrected_by_icl=by_icl,
            corrected_by_both=both,
            reverse_recall=share(both, by_icl),
            agreement=share(int(self.agreeing), int(self.table.sum())),
            right_table=self.table.clone(),
        )

    def bootstrap(self) -> dict[str, Bootstrapped]:
        """The three shares of the result with replicates and interval, by name; empty without replicates.

        A replicate without a corrected query is undefined (NaN), and with few of them the interval is as wide as
        that of so few cases. To be called by all processes, like `compute`.
        """
        if not self.replicates:
            return {}
        with self.sync_context():
            table, agreeing = self.table.double().cpu(), self.agreeing.double().cpu()
            tables, agreements = self.replicate_table.cpu(), self.replicate_agreeing.cpu()
        return {
            name: bootstrapped_share(part, whole, part_replicates, whole_replicates)
            for (name, part, whole), (_, part_replicates, whole_replicates) in zip(
                _shares(table, agreeing), _shares(tables, agreements), strict=True
            )
        }

    def plot(self, val: Rec2FTPResult | None = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":
        """Bars of the eight cells of the table of who was right."""
        result = val or self.details()
        figure, ax = new_axes(ax)
        names = [
            "+".join(name for name, bit in zip(("ZSL", "ICL", "FT"), cell, strict=True) if bit) or "none"
            for cell in [(z, i, f) for z in (0, 1) for i in (0, 1) for f in (0, 1)]
        ]
        ax.bar(names, result.right_table.flatten().tolist())
        ax.set_ylabel("queries")
        ax.set_title(f"Who was right (Rec2FTP {100 * result.value:.1f})")
        ax.tick_params(axis="x", rotation=45)
        return figure, ax
