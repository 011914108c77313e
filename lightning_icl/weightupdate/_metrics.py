"""Everything that is said of one rung: how close it is to in-context learning, and what fine-tuning shares with it."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_icl.metrics.bootstrap import Bootstrapped
from lightning_icl.metrics.closeness import Closeness
from lightning_icl.metrics.forms import Form
from lightning_icl.metrics.mean import QueryMeans
from lightning_icl.metrics.prediction import Rec2FTP
from lightning_icl.metrics.similarity import Resolution, normalised, update_cosine, update_of
from lightning_icl.records import QueryBatch
from lightning_icl.weightupdate.ladder_observation import LadderObservation

CURVES = ("simaou_icl", "simaou_icl_raw", "simaou_ft", "simaou_ft_raw")
"""Figures that have a value in every layer."""


class RungUpdates(QueryMeans):
    """Cosines of a rung's attention-output update with those of in-context learning and of fine-tuning (SimAOU).

    Args:
        layers: number of attention layers.
        rotated: whether in-context queries stand at other positions, which rotary embedding turns further.
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
        kwargs: see `torchmetrics.Metric`.
    """

    def __init__(self, layers: int, *, rotated: bool, replicates: int = 0, **kwargs: Any) -> None:
        super().__init__(dict.fromkeys(CURVES, (layers,)), replicates, **kwargs)
        self.rotated = rotated

    def update(self, zsl: Tensor, icl: Tensor, ft: Tensor, rung: Tensor, weights: Tensor | None) -> None:
        """Add a batch of attention outputs (query, layer, width), with the bootstrap's weights."""
        resolution = Resolution.of(torch.finfo(zsl.dtype).eps, rotated=self.rotated)
        raw = (zsl, icl, ft, rung)
        # Unit vectors for the published form, the outputs themselves for the raw one.
        for form, (before, context, tuned, other) in (("", [normalised(h) for h in raw]), ("_raw", raw)):
            # The rung's queries stand where in-context ones do, so its rounding is theirs.
            moved = update_of(other, before, resolution.icl)
            in_context, learnt = update_of(context, before, resolution.icl), update_of(tuned, before, resolution.ft)
            self._add(f"simaou_icl{form}", update_cosine(moved, in_context), weights)
            self._add(f"simaou_ft{form}", update_cosine(moved, learnt), weights)

    def details(self) -> dict[str, Form]:
        """All figures over all queries, by name; for all processes to call, like `compute`."""
        with self.sync_context():
            return {name: self._form(name) for name in CURVES}


class RungMetrics(nn.Module):
    """The metrics of one rung.

    Args:
        layers: attention layers of the model.
        answers: most answers that a query has.
        rotated: whether in-context queries stand at other positions, which rotary embedding turns further.
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
    """

    def __init__(self, layers: int, answers: int, *, rotated: bool, replicates: int = 0) -> None:
        super().__init__()
        self.closeness = Closeness(answers, replicates=replicates)
        self.rec2ftp = Rec2FTP(replicates=replicates)
        self.updates = RungUpdates(layers, rotated=rotated, replicates=replicates)

    def update(
        self, batch: QueryBatch, views: dict[str, LadderObservation], rung: LadderObservation, weights: Tensor | None
    ) -> None:
        """Add a batch of queries.

        Args:
            batch: the queries.
            views: `zsl`, `icl` and `ft` of the same queries.
            rung: what the rung shows of them.
            weights: of the bootstrap (query, replicate).
        """
        # Named, since metrics take them in different orders.
        zsl, icl, ft = views["zsl"], views["icl"], views["ft"]
        ids = batch.query_ids
        self.closeness.update(icl.answer_scores, rung.answer_scores, icl.logits, rung.logits, ids, weights)
        self.rec2ftp.update(zsl.answer_scores, rung.answer_scores, ft.answer_scores, batch.gold, ids, weights)
        self.updates.update(zsl.outputs, icl.outputs, ft.outputs, rung.outputs, weights)

    def figures(self) -> dict[str, float]:
        """All figures over all queries; NaN for what is undefined."""
        updates = {name: form.value for name, form in self.updates.details().items()}
        return {**self.closeness.details()._asdict(), "rec2ftp": float(self.rec2ftp.details().value), **updates}

    def curves(self) -> dict[str, list[float]]:
        """By figure its value in every layer."""
        return {name: form.per_layer.tolist() for name, form in self.updates.details().items()}

    def bootstrap(self) -> dict[str, Bootstrapped]:
        """All figures with replicates and interval, by name; empty without replicates, for all processes to call."""
        figures, shares, updates = self.closeness.bootstrap(), self.rec2ftp.bootstrap(), self.updates.bootstrap()
        if not figures:
            return {}
        # The first quantity of a metric is its `value` there.
        named = {CURVES[0]: updates["value"], **{name: updates[name] for name in CURVES[1:]}}
        return {**figures, "rec2ftp": shares["value"], **named}
