"""The LightningModule: fit one demonstration at a time, validate a query under every condition.

A query's whole way is here: `validation_step` looks at a batch under zero-shot, in-context and fine-tuned
conditions and streams the three observations into metrics. Nothing of size (queries x layers x width) is kept.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from lightning_icl.errors import ProtocolError
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
from lightning_icl.models.architecture import architecture_of, head_counts
from lightning_icl.models.capture import Capture
from lightning_icl.probing.finetuning import Finetuned, KVFinetuning
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition, Demonstrations, Observation, QueryBatch


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What every condition says of one query."""

    index: int
    """Row number in the data file."""
    gold: int
    """Number of the right answer."""
    scores: dict[str, list[float]]
    """By condition, the mean log-probability of each answer."""


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


class ICLProbe(LightningModule):
    """A causal language model under study: zero-shot, in-context and fine-tuned, side by side.

    `Trainer.fit` with a `KVFinetuning` callback makes the fine-tuned condition; `Trainer.validate` compares. Without
    fine-tuning, `validate` reports zero-shot and in-context predictions alone.

    Args:
        model: a Hugging Face causal language model of a supported architecture.
        demonstrations: the examples in the prompt, as an `ICLDataModule` chose them.

    Raises:
        ModelError: the architecture cannot be probed rightly.
    """

    def __init__(self, model: PreTrainedModel, demonstrations: Demonstrations) -> None:
        super().__init__()
        architecture = architecture_of(model.config)
        self.model = model
        self.demonstrations = demonstrations
        self.finetuning: KVFinetuning | None = None
        self.finetuned: Finetuned | None = None
        self.rec2ftp = Rec2FTP()
        layers = int(model.config.num_hidden_layers)
        heads, _, _ = head_counts(model.config)
        self.sim_aou = SimAOU(layers)
        self.sim_am = SimAM(layers, heads, unmoved_layers=() if architecture.absolute_positions else (0,))
        self.kendall = Kendall(demonstrations.token_example, layers)
        self.comparison: Comparison | None = None
        self.predictions: list[Prediction] = []
        self.seconds = {"prefix": 0.0, "finetune": 0.0, "validate": 0.0, "kendall": 0.0}
        self._views: dict[str, View] = {}
        self._started = 0.0

    @cached_property
    def capture(self) -> Capture:
        """The visit to the model, opened for the length of a step."""
        return Capture(self.model)

    @property
    def conditions(self) -> list[Condition]:
        """Zero-shot and in-context, and fine-tuned once fitting has made it."""
        bos, prefix = self.demonstrations.bos, self.demonstrations.prefix_token_ids
        conditions = [
            Condition(name="zsl", prefix_token_ids=bos),
            Condition(name="icl", prefix_token_ids=prefix),
        ]
        if self.finetuned is not None:
            conditions.append(Condition(name="ft", prefix_token_ids=bos, overlay=self.finetuned.overlay))
        return conditions

    # Fitting: one demonstration a step.

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD over float32 masters of the key/value parameters."""
        if self.finetuning is None:
            raise ProtocolError("Trainer.fit on an ICLProbe needs the callback KVFinetuning(learning_rate=...).")
        return torch.optim.SGD(self.finetuning.begin(self.model), lr=self.finetuning.learning_rate)

    def on_train_start(self) -> None:
        """Start the clock of fine-tuning."""
        self._started = time.perf_counter()

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Any]:
        """Causal language-modelling loss over all predicted tokens of `BOS ex_i`, in nats per token."""
        with self.capture:
            logits, queries = self.capture.train_forward(batch)
        loss = cross_entropy(logits[0, :-1].float(), batch[0, 1:])
        self.log("finetune/loss", loss.detach(), prog_bar=True)
        return {"loss": loss, "queries": queries}

    def on_train_end(self) -> None:
        """Stop the clock of fine-tuning."""
        self.seconds["finetune"] = time.perf_counter() - self._started

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is the overlay, never a second full model."""
        checkpoint["state_dict"] = dict(self.finetuned.overlay.tensors) if self.finetuned is not None else {}

    # Validating: every query under every condition.

    def on_validation_epoch_start(self) -> None:
        """Run every condition's prefix once."""
        started = time.perf_counter()
        self.predictions, self.comparison = [], None
        self.seconds["kendall"] = 0.0
        for metric in (self.rec2ftp, self.sim_aou, self.sim_am, self.kendall):
            metric.reset()
        with self.capture:
            self._views = {item.name: View.prepare(self.capture, item) for item in self.conditions}
        self.seconds["prefix"] = time.perf_counter() - started
        self._started = time.perf_counter()

    def validation_step(self, batch: QueryBatch, batch_idx: int) -> None:
        """Look at a batch under every condition and stream what is seen into the metrics."""
        with self.capture:
            seen = {name: view.observe(self.capture, batch) for name, view in self._views.items()}
        self._keep_predictions(batch, seen)
        if self.finetuned is not None:
            self._compare(batch, seen["zsl"], seen["icl"], seen["ft"])

    def _compare(self, batch: QueryBatch, zsl: Observation, icl: Observation, ft: Observation) -> None:
        """The paper's three levels: predictions, representations, attention."""
        self.rec2ftp.update(zsl.answer_scores, icl.answer_scores, ft.answer_scores, batch.gold)
        self.sim_aou.update(zsl.attention_output, icl.attention_output, ft.attention_output, batch.query_ids)
        self.sim_am.update(zsl.own_scores, icl.own_scores, ft.own_scores, icl.own_lengths)
        training_queries = self.finetuned.training_queries if self.finetuned is not None else None
        if training_queries is not None:
            started = time.perf_counter()
            by_query = torch.einsum("ble,lpe->blp", ft.query, training_queries.to(ft.query))
            self.kendall.update(icl.prefix_scores, by_query, batch.query_ids, icl.prefix_visible)
            self.seconds["kendall"] += time.perf_counter() - started

    def _keep_predictions(self, batch: QueryBatch, seen: dict[str, Observation]) -> None:
        scores = {name: observation.answer_scores.tolist() for name, observation in seen.items()}
        known = zip(batch.query_ids.tolist(), batch.gold.tolist(), batch.answer_counts.tolist(), strict=True)
        for row, (index, gold, answers) in enumerate(known):
            own = {name: rows[row][:answers] for name, rows in scores.items()}
            self.predictions.append(Prediction(index=index, gold=gold, scores=own))

    def on_validation_epoch_end(self) -> None:
        """Gather predictions from all processes in data order, compute the metrics and log the main figures."""
        self.predictions = sorted(_gathered(self.predictions), key=lambda prediction: prediction.index)
        for condition in self._views:
            self.log(f"accuracy/{condition}", accuracy(self.predictions, condition), rank_zero_only=True)
        if self.finetuned is not None:
            self.comparison = Comparison(
                self.rec2ftp.compute(), self.sim_aou.compute(), self.sim_am.compute(), self.kendall.compute()
            )
            for level, result in self.comparison._asdict().items():
                self.log(level, result.value, rank_zero_only=True)
        self._views = {}
        self.seconds["validate"] = time.perf_counter() - self._started


def accuracy(predictions: Sequence[Prediction], condition: str) -> float:
    """Share of queries whose best-scored answer is gold; NaN for no queries."""
    right = [best_answer(prediction.scores[condition]) == prediction.gold for prediction in predictions]
    return sum(right) / len(right) if right else float("nan")


def best_answer(scores: Sequence[float]) -> int:
    """The first of the best answers."""
    return max(range(len(scores)), key=scores.__getitem__)


def _gathered(predictions: list[Prediction]) -> list[Prediction]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return predictions
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, predictions)
    return [prediction for share in shares for prediction in share]
