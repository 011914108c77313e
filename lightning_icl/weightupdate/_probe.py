"""The LightningModule of the ladder: fine-tuned like any probe, validated by looking at the queries on every rung."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.attention.ladder import PrefixUpdate
from lightning_icl.errors import NumericalError, ProtocolError
from lightning_icl.metrics.bootstrap import REPLICATES, poisson_weights
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import LaidOver, overlaid
from lightning_icl.models.recording import Prefix
from lightning_icl.models.replacement import Replacement, Updated
from lightning_icl.models.scope import Scope
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.findings import Prediction, predictions_of
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.records import VIEWS, Demonstrations, QueryBatch
from lightning_icl.weightupdate._matrices import Matrices
from lightning_icl.weightupdate._metrics import RungMetrics
from lightning_icl.weightupdate._shares import Trace, affine_parts, shares
from lightning_icl.weightupdate.fast_weights import FastWeights, stored
from lightning_icl.weightupdate.ladder_observation import LadderObservation, observe_condition
from lightning_icl.weightupdate.settings import FastRung, Rung
from lightning_icl.weightupdate.survey import Survey


@dataclass(frozen=True, kw_only=True)
class _Condition:
    """A way of looking at queries, made ready for the model."""

    prefix: Prefix | None
    overlay: LaidOver | None = None
    replacement: Replacement | None = None

    def observe(self, capture: Capture, batch: QueryBatch, name: str) -> LadderObservation:
        with overlaid(self.overlay):
            return observe_condition(capture, batch, self.prefix, name=name, replacement=self.replacement)


class WeightUpdateProbe(FinetunedModule):
    """A causal language model whose attention to the demonstrations is replaced by ever simpler updates of each head.

    `Trainer.fit` with a `KVFinetuning` callback makes the fine-tuned view; `Trainer.validate` then streams over the
    queries and leaves `rungs`, the metrics of every rung by name, `predictions`, `matrices` and `shares`.

    Args:
        model: a Hugging Face causal language model of a supported architecture.
        demonstrations: the examples in the prompt, as an `ICLDataModule` chose them.
        held_out: prompts whose mean query is the expansion point.
        answers: most answers that a query has.
        scope: whose attention to the demonstrations is replaced.
        depth: a rung that is also put into some of the layers alone.

    Raises:
        ModelError: the architecture cannot be probed rightly.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        demonstrations: Demonstrations,
        held_out: Sequence[QueryBatch],
        answers: int,
        scope: Scope = "probe",
        depth: Rung | None = None,
    ) -> None:
        super().__init__(model, demonstrations)
        self.held_out, self.answers, self.scope, self.depth = held_out, answers, scope, depth
        self.predictions: list[Prediction] = []
        self.dropped: dict[str, str] = {}
        """Names of conditions left out, with the reason."""
        self.metrics = nn.ModuleList()
        self.rungs: dict[str, RungMetrics] = {}
        self.factors: Tensor | None = None
        """β of the linear rung (layer, head)."""
        self.matrices: Matrices | None = None
        """The affine rung's update of every head beside fine-tuning's."""
        self.control_matrices: dict[str, Matrices] = {}
        """The same of other demonstrations or weights, by name."""
        self.shares: dict[str, list[Tensor] | None] = {}
        """Of `icl` and `ft` by layer the share of each demonstration; None where no step was seen."""
        self._contrasts: Sequence[Contrast] = ()
        self._trace: Trace | None = None
        self._prefix: Prefix | None = None
        self._updates: dict[str, Mapping[int, PrefixUpdate]] = {}
        self._conditions: dict[str, _Condition] = {}

    @property
    def layers(self) -> int:
        """Attention layers of the model."""
        return len(self.capture.attentions)

    def also_compare(self, contrasts: Sequence[Contrast]) -> None:
        """Make the matrices of controls too, in the next validation."""
        self._contrasts = tuple(contrasts)

    def on_train_start(self) -> None:
        """Look at the held-out prompts before the first step."""
        # Dropout off, whatever the user's Trainer has switched on.
        self.model.eval()
        with self.capture, self.trainer.precision_plugin.forward_context():
            self._trace = Trace(self.capture, self.demonstrations, self.held_out, self.scope)
        super().on_train_start()

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Tensor, batch_idx: int) -> None:
        """Look at them again after each."""
        assert self._trace is not None
        with self.capture, self.trainer.precision_plugin.forward_context():
            # The masters themselves, before the next step overwrites them.
            self._trace.step(self.capture, self._at_work().masters.overlay(0))

    def on_validation_epoch_start(self) -> None:
        """Run the prefixes once, survey the held-out prompts, and build every rung.

        Raises:
            ProtocolError: there was no fine-tuning to compare with.
        """
        if self.finetuned is None:
            raise ProtocolError("WeightUpdateProbe compares with fine-tuning: run Trainer.fit with KVFinetuning first.")
        bos = self.demonstrations.bos
        # Made ready once, for prefix and queries alike.
        overlay = LaidOver(self.model, self.finetuned.overlay)
        with self.capture, self.trainer.precision_plugin.forward_context():
            prefix = self._prefix = self.capture.prefix(self.demonstrations.prefix_token_ids)
            assert prefix is not None
            zsl = self.capture.prefix(bos)
            with overlay.active():
                tuned = self.capture.prefix(bos)
            survey = Survey(self.layers, len(bos), self.scope).of(self.capture, prefix, self.held_out)
            self._compare_matrices(survey, Contrast.of(self.demonstrations, self.finetuned))
        self._updates = survey.rungs()
        # In scope "alone" it is a condition of its own; elsewhere it is in-context learning itself.
        if self.scope != "alone":
            del self._updates["softmax"]
        self.factors = torch.stack([survey.factor(layer).cpu() for layer in range(self.layers)])
        views = (_Condition(prefix=zsl), _Condition(prefix=prefix), _Condition(prefix=tuned, overlay=overlay))
        self._conditions = dict(zip(VIEWS, views, strict=True)) | self._replaced(prefix)
        self.rungs = {name: self._new_metrics() for name in self._conditions}
        self.metrics = nn.ModuleList(self.rungs.values())
        self.predictions, self.dropped = [], {}

    def _compare_matrices(self, survey: Survey, main: Contrast) -> None:
        """Set the affine rung's matrices and their parts beside fine-tuning's, and those of the controls."""
        self.matrices = Matrices.about(survey, self.capture, main, self.held_out)
        self.control_matrices = {
            contrast.name: Matrices.of(self.capture, contrast, self.held_out, self.scope)
            for contrast in self._contrasts
        }
        owners = self.demonstrations.token_owner
        self.shares = {
            "icl": [shares(affine_parts(survey.expansion(layer), owners)).cpu() for layer in survey.layers],
            "ft": None if self._trace is None else self._trace.shares(),
        }

    def _new_metrics(self) -> RungMetrics:
        # Learned positions are part of a token; only relative ones are rotated.
        rotated = not self.capture.architecture.absolute_positions
        metrics = RungMetrics(self.layers, self.answers, rotated=rotated, replicates=REPLICATES)
        return metrics.to(self.model.device)

    def _replaced(self, prefix: Prefix) -> dict[str, _Condition]:
        """Every rung in all layers, and one of them in parts of the layers: `affine 0-3`."""
        # Every rung in all layers first, in the ladder's order.
        parts = {name: (name, range(self.layers)) for name in self._updates}
        if self.depth is not None:
            parts |= {part_name(self.depth, part): (self.depth, part) for part in parts_of(self.layers)}
        conditions = {}
        for name, (rung, layers) in parts.items():
            updates = {layer: self._updates[rung][layer] for layer in layers}
            updated = Updated(updates, len(self.demonstrations.bos), self.scope)
            conditions[name] = _Condition(prefix=prefix, replacement=updated)
        return conditions

    def validation_step(self, batch: QueryBatch, batch_idx: int) -> None:
        """Look at a batch under every condition, and compare each rung with in-context learning and fine-tuning."""
        weights = poisson_weights(batch.query_ids, REPLICATES)
        scores: dict[str, Tensor] = {}
        with self.capture:
            # The three views first: every rung is compared with them.
            views = {name: self._conditions[name].observe(self.capture, batch, name) for name in VIEWS}
            for name, condition in self._conditions.items():
                try:
                    # A view is its own condition and is not looked at twice.
                    seen = views.get(name) or condition.observe(self.capture, batch, name)
                except NumericalError as error:  # plain linear attention may leave what numbers can hold
                    if name in VIEWS:
                        raise
                    self.dropped[name] = str(error)
                    continue
                scores[name] = seen.answer_scores
                with torch.autocast(self.model.device.type, enabled=False):
                    self.rungs[name].update(batch, views, seen, weights)
        self.predictions += predictions_of(batch, scores)

    def on_validation_epoch_end(self) -> None:
        """Leave out what yielded no numbers for some query, and log how far each rung is from in-context learning."""
        # Batches are sorted by length; readers expect the order of their file.
        self.predictions.sort(key=lambda prediction: prediction.index)
        for name in self.dropped:
            self.rungs.pop(name, None)
            for prediction in self.predictions:
                prediction.scores.pop(name, None)
        for name, metrics in self.rungs.items():
            self.log(f"kl/{name}", metrics.closeness.compute(), rank_zero_only=True)
        # Prefixes take memory that the next fit needs.
        self._conditions = {}

    def fast_weights(self, rung: FastRung) -> FastWeights:
        """A rung as an object that answers without the demonstrations, once `validate` has built it."""
        assert self._prefix is not None
        return stored(self._updates[rung], self._prefix, self.demonstrations, rung, self.scope)


def parts_of(layers: int) -> list[range]:
    """Layers up to each one, from each one on, and each one alone; all of them, and each part, once.

    >>> parts_of(2)
    [range(0, 1), range(1, 2)]
    """
    up_to, onward = [range(layer + 1) for layer in range(layers)], [range(layer, layers) for layer in range(layers)]
    # A range of all layers is the rung itself and is left out below.
    parts = dict.fromkeys([*up_to, *onward, *(range(layer, layer + 1) for layer in range(layers))])
    return [part for part in parts if len(part) < layers]


def part_name(rung: str, layers: range) -> str:
    """What a rung in some of the layers is called.

    >>> part_name("affine", range(0, 4)), part_name("affine", range(2, 3))
    ('affine 0-3', 'affine 2')
    """
    last = f"-{layers[-1]}" if len(layers) > 1 else ""
    return f"{rung} {layers[0]}{last}"
