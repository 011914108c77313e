"""Contrasts: which three conditions are compared, and the metrics that compare them while queries stream by.

The paper's own comparison is one contrast. Every control or further learning rate is one more, over the same queries in
the same pass: conditions that contrasts share are observed once.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.data.queries import partners
from lightning_icl.metrics import (
    Kendall,
    KendallResult,
    Rec2FTP,
    Rec2FTPResult,
    SimAM,
    SimAMResult,
    SimAOU,
    SimAOUResult,
)
from lightning_icl.metrics.bootstrap import Bootstrapped
from lightning_icl.metrics.kendall import InContext
from lightning_icl.metrics.similarity import Resolution
from lightning_icl.models.architecture import Architecture, architecture_of, head_counts
from lightning_icl.probing.finetuning_run import Finetuned
from lightning_icl.records import Condition, Demonstrations, Observation, QueryBatch

MAIN = "main"


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast:
    """In-context learning and fine-tuning, both against a zero-shot view: three conditions compared."""

    name: str
    """What it is called in results; the paper's own is `main`."""
    zsl: Condition
    """Without demonstrations."""
    icl: Condition
    """With demonstrations in the prompt."""
    ft: Condition
    """With weights learnt from demonstrations."""
    demonstrations: Demonstrations
    """Those of `icl`, whose tokens Kendall ranks."""
    training_queries: Tensor | None = None
    """Query vectors of the same tokens in training (layer, prefix, query_width); Kendall is undefined without."""
    next_query: bool = False
    """Whether `icl` is compared not with `ft` but with another query's in-context update, added to the zero-shot view.

    The other query is the next of its group (`data.queries.partners`): neighbours in the order of length, whatever
    the batch size and the number of processes. Only representations can be compared."""
    learning_rate: float | None = None
    """Rate at which `ft` was learnt, where it was."""
    note: str = ""
    """What is to be said of its figures."""

    @property
    def conditions(self) -> tuple[Condition, Condition, Condition]:
        """The three, in the order in which the metrics take them."""
        return self.zsl, self.icl, self.ft

    @property
    def same_positions(self) -> bool:
        """Whether queries stand where they stand in context, so that the first layer's own scores cannot differ."""
        # `position_offset` moves zero-shot queries to where they would stand behind the demonstrations.
        return len(self.zsl.prefix_token_ids) + self.zsl.position_offset == len(self.icl.prefix_token_ids)

    @classmethod
    def of(
        cls,
        demonstrations: Demonstrations,
        finetuned: Finetuned,
        *,
        name: str = MAIN,
        icl: str = "icl",
        ft: str = "ft",
    ) -> "Contrast":
        """The paper's comparison: one set of demonstrations, in the prompt and learnt.

        Args:
            demonstrations: the examples.
            finetuned: what fine-tuning on them left behind.
            name: of the contrast.
            icl: name of the in-context condition; another one for each other set of demonstrations.
            ft: name of the fine-tuned condition.
        """
        zsl = Condition.zero_shot(demonstrations)
        return cls(
            name=name,
            zsl=zsl,
            icl=Condition.in_context(demonstrations, icl),
            ft=replace(zsl, name=ft, overlay=finetuned.overlay),
            demonstrations=demonstrations,
            training_queries=finetuned.training_queries,
            learning_rate=finetuned.learning_rate,
        )


class Comparison(NamedTuple):
    """In-context learning against fine-tuning, at the paper's three levels."""

    rec2ftp: Rec2FTPResult
    """Predictions."""
    sim_aou: SimAOUResult
    """Representations."""
    sim_am: SimAMResult
    """Attention to the query."""
    kendall: KendallResult
    """Attention to the demonstrations; all NaN without the query vectors of fine-tuning."""


# A module, so that Lightning moves the metrics to the device.
class ContrastMetrics(nn.Module):
    """The metrics of one contrast.

    Args:
        contrast: what is compared.
        architecture: row of the table of models.
        layers: attention layers of the model.
        heads: query heads of each.
        replicates: of the Poisson bootstrap over queries; 0 keeps none.
    """

    def __init__(
        self, contrast: Contrast, architecture: Architecture, layers: int, heads: int, *, replicates: int = 0
    ) -> None:
        super().__init__()
        self.contrast = contrast
        self.rec2ftp = Rec2FTP(replicates=replicates)
        self.sim_aou = SimAOU(layers, replicates=replicates)
        # With relative positions, a shift of all tokens changes nothing that the first layer computes among them.
        self.placed_alike = contrast.same_positions or not architecture.absolute_positions
        # Rotated by another angle: equal in exact arithmetic, but with rounding of its own.
        self.rotated = self.placed_alike and not contrast.same_positions
        unmoved = (0,) if self.placed_alike else ()
        self.sim_am = SimAM(layers, heads, unmoved_layers=unmoved, replicates=replicates)
        self.kendall = Kendall(contrast.demonstrations.token_example, layers, replicates=replicates)

    @classmethod
    def of_model(cls, contrast: Contrast, model: PreTrainedModel, replicates: int = 0) -> "ContrastMetrics":
        """The metrics of a contrast for a model, on its device."""
        config = model.config
        heads, _, _ = head_counts(config)
        layers = int(config.num_hidden_layers)
        return cls(contrast, architecture_of(config), layers, heads, replicates=replicates).to(model.device)

    def update(
        self, batch: QueryBatch, zsl: Observation, icl: Observation, ft: Observation, weights: Tensor | None = None
    ) -> None:
        """Add a batch of queries at the levels of predictions, representations and attention to the query.

        `weights` (query, replicate) are the batch's in the bootstrap, which all contrasts share; without them each
        metric draws the same ones again.
        """
        ids = batch.query_ids
        before, context = zsl.attention_output, self._in_context_output(zsl, icl)
        resolution = Resolution.of(icl.epsilon, rotated=self.rotated)
        if self.contrast.next_query:
            if len(ids) > 1:  # a lone query has no other to borrow from
                other = before + (context - before)[partners(len(ids))]
                # Both sides are in-context updates here, so both carry the rounding of other positions.
                alike = resolution._replace(ft=resolution.icl)
                self.sim_aou.update(before, context, other, ids, weights, alike)
            return
        self.rec2ftp.update(zsl.answer_scores, icl.answer_scores, ft.answer_scores, batch.gold, ids, weights)
        self.sim_aou.update(before, context, ft.attention_output, ids, weights, resolution)
        self.sim_am.update(zsl.own_scores, icl.own_scores, ft.own_scores, icl.own_lengths, ids, weights, resolution)

    def _in_context_output(self, zsl: Observation, icl: Observation) -> Tensor:
        """h_ICL (batch, layer, width), equal to h_ZSL where it cannot differ but by rounding.

        Where windows keep the probe token from everything before the query, and positions do not tell the two apart,
        the two are one function of the same tokens.
        """
        if icl.reaches_prefix is None or not self.placed_alike:
            return icl.attention_output
        return torch.where(icl.reaches_prefix[..., None], icl.attention_output, zsl.attention_output)

    def update_kendall(
        self,
        batch: QueryBatch,
        icl: Observation,
        ft: Observation,
        weights: Tensor | None = None,
        in_context: dict[Hashable, InContext] | None = None,
    ) -> None:
        """Add a batch of queries at the level of attention to the demonstrations.

        `in_context` holds what the batch's in-context scores tell alone, for contrasts that share them.
        """
        if self.contrast.training_queries is None or self.contrast.next_query:
            return
        training_queries = self.contrast.training_queries.to(ft.query)
        # Inner product of the query's own vector with each recorded training token's, heads side by side.
        by_query = torch.einsum("ble,lpe->blp", ft.query, training_queries)
        scores, visible = icl.prefix_scores, icl.prefix_visible
        shared_by = self.contrast.icl.inputs, self.contrast.demonstrations.token_example
        in_context = {} if in_context is None else in_context
        if shared_by not in in_context:
            in_context[shared_by] = self.kendall.in_context(scores, batch.query_ids, visible)
        self.kendall.update(scores, by_query, batch.query_ids, visible, weights, in_context[shared_by])

    def bootstrap(self) -> dict[str, Bootstrapped]:
        """Every figure with replicates and interval, by level and name (`sim_aou.value`); for all processes to call."""
        levels = {
            "rec2ftp": self.rec2ftp.bootstrap(),
            "sim_aou": self.sim_aou.bootstrap(),
            "sim_am": self.sim_am.bootstrap(),
            "kendall": self.kendall.bootstrap(),
        }
        return {f"{level}.{name}": figure for level, figures in levels.items() for name, figure in figures.items()}

    def compute(self) -> Comparison:
        """All results over all queries of all processes."""
        return Comparison(self.rec2ftp.details(), self.sim_aou.details(), self.sim_am.details(), self.kendall.details())


def by_name(contrasts: "list[Contrast]") -> dict[str, Condition]:
    """Every condition of some contrasts once, in order of first use.

    Raises:
        ValueError: two different conditions share a name.
    """
    conditions: dict[str, Condition] = {}
    for contrast in contrasts:
        for condition in contrast.conditions:
            first = conditions.setdefault(condition.name, condition)
            # Overlays by identity: `==` on tensors gives tensors, not a truth value.
            same = replace(first, overlay=None) == replace(condition, overlay=None)
            if not same or first.overlay is not condition.overlay:
                raise ValueError(f"Two different conditions are called {condition.name!r}.")
    return conditions
