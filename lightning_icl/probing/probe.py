"""The LightningModule: fit one demonstration at a time, validate a query under every condition.

A query's whole way is here: `validation_step` looks at a batch under zero-shot, in-context and fine-tuned
conditions and streams the three observations into metrics. Nothing of size (queries x layers x width) is kept.
"""

import time
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.errors import NumericalError, ProtocolError
from lightning_icl.metrics.bootstrap import REPLICATES, Bootstrapped, poisson_weights
from lightning_icl.metrics.kendall import RandomBaseline
from lightning_icl.models.architecture import architecture_of, head_counts
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import LaidOver
from lightning_icl.models.plain import check_plain
from lightning_icl.models.spreading import is_spread
from lightning_icl.probing.backoff import Backoff
from lightning_icl.probing.checkpoint import from_checkpoint, to_checkpoint
from lightning_icl.probing.contrast import MAIN, Comparison, Contrast, ContrastMetrics, by_name, unmoved_layers
from lightning_icl.probing.finetuning import Finetuned, KVFinetuning
from lightning_icl.probing.layer_causal import layer_causal_loss, layer_outputs
from lightning_icl.probing.loss import next_token_loss
from lightning_icl.probing.observation import View
from lightning_icl.probing.protocol import check_strategy, check_trainer
from lightning_icl.records import Condition, Demonstrations, Observation, QueryBatch

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What every condition says of one query."""

    index: int
    """Row number in the data file."""
    gold: int
    """Number of the right answer."""
    scores: dict[str, list[float]]
    """By condition, the mean log-probability of each answer."""


class ICLProbe(LightningModule):
    """A causal language model under study: zero-shot, in-context and fine-tuned, side by side.

    `Trainer.fit` with a `KVFinetuning` callback makes the fine-tuned condition; `Trainer.validate` compares. Without
    fine-tuning, `validate` reports zero-shot and in-context predictions alone.

    Args:
        model: a Hugging Face causal language model of a supported architecture.
        demonstrations: the examples in the prompt, as an `ICLDataModule` chose them.

    Raises:
        ModelError: the architecture cannot be probed rightly, or the model carries adapters or is quantised.
    """

    def __init__(self, model: PreTrainedModel, demonstrations: Demonstrations) -> None:
        super().__init__()
        check_plain(model)
        if is_spread(model):
            vars(self)["model"] = model  # Lightning moves the modules it knows to one device
        else:
            self.model = model
        self.demonstrations = demonstrations
        self.finetuning: KVFinetuning | None = None
        self.finetuned: Finetuned | None = None
        self.contrasts: list[Contrast] = []
        self.metrics = nn.ModuleList()
        self.comparisons: dict[str, Comparison] = {}
        self.bootstraps: dict[str, dict[str, Bootstrapped]] = {}
        self.predictions: list[Prediction] = []
        self.replicates = REPLICATES
        """Replicates of the bootstrap behind every interval; 0 for none."""
        self.drop_nonfinite = False
        """Whether a fine-tuned condition that yields NaN is left out with its contrasts, instead of ending the pass."""
        self.dropped: dict[str, str] = {}
        """Names of conditions left out, with the reason."""
        self.seconds = {"prefix": 0.0, "finetune": 0.0, "validate": 0.0, "kendall": 0.0}
        self._views: dict[str, View] = {}
        self._backoff = Backoff()
        self._started = 0.0

    @cached_property
    def capture(self) -> Capture:
        """The visit to the model, opened for the length of a step."""
        return Capture(self.model)

    @property
    def studied(self) -> list[Contrast]:
        """The paper's comparison, once fitting has made it, and the `contrasts` added to it."""
        own = [] if self.finetuned is None else [Contrast.of(self.demonstrations, self.finetuned)]
        return own + self.contrasts

    @property
    def conditions(self) -> dict[str, Condition]:
        """Zero-shot and in-context, and whatever the contrasts need, by name."""
        plain = (Condition.zero_shot(self.demonstrations), Condition.in_context(self.demonstrations))
        return {item.name: item for item in plain} | by_name(self.studied)

    @property
    def unmoved_layers(self) -> tuple[int, ...]:
        """Layers whose scores among the query's own tokens cannot depend on the prompt."""
        return unmoved_layers(architecture_of(self.model.config))

    @property
    def comparison(self) -> Comparison | None:
        """The paper's comparison, once `validate` has made it."""
        return self.comparisons.get(MAIN)

    def configure_callbacks(self) -> list[Callback]:
        """None of its own; but this is where a Trainer is checked before any callback of it acts.

        Raises:
            ProtocolError: the Trainer would break the protocol, or lose the results.
        """
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_trainer(self.trainer)
        else:
            check_strategy(self.trainer)
        return []

    # Fitting: one demonstration a step.

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD over float32 masters of the key/value parameters."""
        if self.finetuning is None:
            raise ProtocolError("Trainer.fit on an ICLProbe needs the callback KVFinetuning(learning_rate=...).")
        return self.finetuning.optimizer(self.model)

    def on_train_start(self) -> None:
        """Start the clock of fine-tuning."""
        self._started = time.perf_counter()

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Any]:
        """Causal language-modelling loss over all predicted tokens of `ex_i` behind BOS, in nats per token.

        A control sums such a loss of every layer instead (`probing.layer_causal`).
        """
        assert self.finetuning is not None
        self.model.eval()  # no dropout, whoever has switched it on
        reading = self.finetuning.layer_causal
        own: AbstractContextManager[list[Tensor]] = layer_outputs(self.model, reading) if reading else nullcontext([])
        with self.capture, self.finetuning.masters.in_use(), own as outputs:
            logits, queries = self.capture.train_forward(batch)
            given = self.demonstrations.first_learnt - 1  # of a chat's header all but the last token is left out
            outputs, predicted = [output[:, given:] for output in outputs], batch[:, given:]
            if reading:
                loss = layer_causal_loss(self.model, outputs, predicted)
            else:
                loss = next_token_loss(logits[0, given:], predicted[0])
        self.log("finetune/loss", loss.detach(), prog_bar=True)
        return {"loss": loss, "queries": queries}

    def backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        """Take gradients of what is trained and of nothing else, past all that listens for a parameter's gradient."""
        assert self.finetuning is not None
        self.finetuning.masters.backward(loss)

    def on_train_end(self) -> None:
        """Stop the clock of fine-tuning."""
        self.seconds["finetune"] = time.perf_counter() - self._started

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is the overlay and the query vectors of its steps, never a second full model."""
        tuned = self.finetuned if self.finetuning is None else self.finetuning.so_far(self)
        to_checkpoint(checkpoint, tuned, self.model, self.demonstrations)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the fine-tuning from a checkpoint.

        Raises:
            ProtocolError: it holds none, a part of one, or one of another model or other demonstrations.
        """
        self.finetuned = from_checkpoint(checkpoint, self.model, self.demonstrations)
        checkpoint["state_dict"] = self.state_dict()  # what Lightning loads next: the module stays as it is

    # Validating: every query under every condition.

    def on_validation_epoch_start(self) -> None:
        """Run every condition's prefix once."""
        started = time.perf_counter()
        self.predictions, self.comparisons, self.bootstraps, self.dropped = [], {}, {}, {}
        self.seconds["kendall"] = 0.0
        self.metrics = nn.ModuleList(map(self._metrics_of, self.studied))
        with self.capture, self.trainer.precision_plugin.forward_context():
            self._views = self._prepared()
        self.seconds["prefix"] = time.perf_counter() - started
        self._started = time.perf_counter()

    def _prepared(self) -> dict[str, View]:
        """A view for every condition; overlays are made ready once, and equal inputs share one prefix."""
        ready: dict[int, LaidOver] = {}
        scratch: dict[str, Tensor] = {}
        views: dict[tuple[Any, ...], View] = {}
        for item in self.conditions.values():
            if item.overlay is not None and id(item.overlay) not in ready:
                ready[id(item.overlay)] = LaidOver(self.model, item.overlay, scratch)
            if item.inputs not in views:
                views[item.inputs] = View.prepare(self.capture, item, ready.get(id(item.overlay)))
        return {name: views[item.inputs].read_as(item, self.capture) for name, item in self.conditions.items()}

    def _metrics_of(self, contrast: Contrast) -> ContrastMetrics:
        config = self.model.config
        heads, _, _ = head_counts(config)
        layers = int(config.num_hidden_layers)
        metrics = ContrastMetrics(contrast, architecture_of(config), layers, heads, replicates=self.replicates)
        return metrics.to(self.model.device)

    def validation_step(self, batch: QueryBatch, batch_idx: int) -> None:
        """Look at a batch under every condition and stream what is seen into the metrics.

        A fine-tuned view is looked at when its contrast's turn comes and dropped after the last one that needs it, so
        that many of them need no more memory than one. Conditions with the same inputs are observed once.
        """
        if not len(batch.query_ids):  # this process's share is empty
            return
        scores: dict[str, Tensor] = {}
        seen: dict[tuple[Any, ...], Observation] = {}
        contrasts = self.studied
        weights = poisson_weights(batch.query_ids, self.replicates) if self.replicates and contrasts else None
        last = {item.inputs: contrast.name for contrast in contrasts for item in contrast.conditions}
        random: dict[Hashable, RandomBaseline] = {}
        with self.capture:
            for name in ("zsl", "icl"):
                self._look(self._views[name], batch, scores, seen)
            for contrast, metrics in zip(contrasts, self.metrics, strict=True):
                views = [self._views[item.name] for item in contrast.conditions]
                for view in views:
                    if view.condition.name not in scores and view.condition.name not in self.dropped:
                        self._look_or_drop(view, batch, scores, seen)
                if not self._is_dropped(contrast):
                    zsl, icl, ft = (view.read(seen[view.condition.inputs]) for view in views)
                    self._compare(metrics, batch, (zsl, icl, ft), weights, random)
                for view in views:
                    if last[view.condition.inputs] == contrast.name:
                        seen.pop(view.condition.inputs, None)
        self._keep_predictions(batch, scores)

    def _look_or_drop(
        self, view: View, batch: QueryBatch, scores: dict[str, Tensor], seen: dict[tuple[Any, ...], Observation]
    ) -> None:
        """Observe a condition of a contrast, or drop it if it diverged and that is wanted."""
        try:
            self._look(view, batch, scores, seen)
        except NumericalError as error:
            if view.condition.overlay is None or not self.drop_nonfinite:
                raise
            self.dropped[view.condition.name] = str(error)

    def _look(
        self, view: View, batch: QueryBatch, scores: dict[str, Tensor], seen: dict[tuple[Any, ...], Observation]
    ) -> None:
        """What a view shows, by its inputs, unless another view has shown it; and the scores it reads there."""
        inputs = view.condition.inputs
        if inputs not in seen:
            seen[inputs] = self._backoff.observe(lambda part: view.observe(self.capture, part), batch)
        scores[view.condition.name] = view.read(seen[inputs]).answer_scores

    def _is_dropped(self, contrast: Contrast) -> bool:
        return any(item.name in self.dropped for item in contrast.conditions)

    def _compare(
        self,
        metrics: nn.Module,
        batch: QueryBatch,
        seen: tuple[Observation, Observation, Observation],
        weights: Tensor | None,
        random: dict[Hashable, RandomBaseline],
    ) -> None:
        """The paper's levels, in the precision of the observations whatever the model runs in."""
        assert isinstance(metrics, ContrastMetrics)
        with torch.autocast(self.model.device.type, enabled=False):
            metrics.update(batch, *seen, weights)
            started = time.perf_counter()
            metrics.update_kendall(batch, *seen[1:], weights, random)
            self.seconds["kendall"] += time.perf_counter() - started

    def _keep_predictions(self, batch: QueryBatch, seen: dict[str, Tensor]) -> None:
        scores = {name: rows.tolist() for name, rows in seen.items()}
        known = zip(batch.query_ids.tolist(), batch.gold.tolist(), batch.answer_counts.tolist(), strict=True)
        for row, (index, gold, answers) in enumerate(known):
            own = {name: rows[row][:answers] for name, rows in scores.items()}
            self.predictions.append(Prediction(index=index, gold=gold, scores=own))

    def on_validation_epoch_end(self) -> None:
        """Gather predictions from all processes in data order, compute the metrics and log the main figures.

        Raises:
            ProtocolError: no process has looked at a query.
        """
        self.predictions = sorted(_gathered(self.predictions), key=lambda prediction: prediction.index)
        if not self.predictions:
            raise ProtocolError("No query was looked at, so that there is no figure. Give the data at least one query.")
        self.dropped = dict(_gathered(list(self.dropped.items())))
        for prediction in self.predictions:
            for condition in self.dropped:
                prediction.scores.pop(condition, None)
        for condition in (name for name in self._views if name not in self.dropped):
            self.log(f"accuracy/{condition}", accuracy(self.predictions, condition), rank_zero_only=True)
        for metrics in self.metrics:
            assert isinstance(metrics, ContrastMetrics)
            if not self._is_dropped(metrics.contrast):
                self.comparisons[metrics.contrast.name] = metrics.compute()
                self.bootstraps[metrics.contrast.name] = metrics.bootstrap()
        if self.comparison is not None:
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


def _gathered(items: list[Item]) -> list[Item]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, items)
    return [item for share in shares for item in share]
