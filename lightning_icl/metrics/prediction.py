"""Prediction level: does in-context learning correct what fine-tuning corrects? (Dai et al., section 4.3)"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric

from lightning_icl.metrics.plotting import new_axes

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
    cell = 4 * zsl.long() + 2 * icl.long() + ft.long()
    return torch.bincount(cell, minlength=8).view(2, 2, 2)


def share(part: int, whole: int) -> float:
    """`part / whole`, NaN for an empty whole.

    >>> share(1, 4), share(0, 0)
    (0.25, nan)
    """
    return part / whole if whole else float("nan")


class Rec2FTP(Metric):
    """Recall to fine-tuning predictions, with everything else that can be said of who was right.

    `#{ZSL wrong, FT right, ICL right} / #{ZSL wrong, FT right}`; NaN when fine-tuning corrects nothing. Ties between
    answer scores go to the first answer.

    Update takes answer scores (query, answer) under zero-shot, in-context and fine-tuned conditions, and gold label
    numbers (query,). Compute gives a `Rec2FTPResult`.

    >>> metric = Rec2FTP()
    >>> wrong, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> metric.update(wrong, right, right, torch.tensor([1]))
    >>> metric.update(wrong, wrong, right, torch.tensor([1]))
    >>> metric.compute().value
    0.5
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    table: Tensor
    agreeing: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("table", default=torch.zeros(2, 2, 2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("agreeing", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        zsl: Float[Tensor, "query answer"],
        icl: Float[Tensor, "query answer"],
        ft: Float[Tensor, "query answer"],
        gold: Int[Tensor, " query"],
    ) -> None:
        """Count a batch of queries."""
        chosen = [scores.argmax(-1) for scores in (zsl, icl, ft)]
        self.table += right_table(*(choice == gold for choice in chosen))
        self.agreeing += (chosen[1] == chosen[2]).sum()

    def compute(self) -> Rec2FTPResult:
        """The shares and counts over all queries."""
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

    def plot(self, val: Rec2FTPResult | None = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":
        """Bars of the eight cells of the table of who was right."""
        result = val or self.compute()
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
