"""What fine-tuning does on queries held out of the training split, and on the demonstrations that it learnt from."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property

import torch
from lightning import LightningModule
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from lightning_icl.data.module import QueryBatches
from lightning_icl.data.queries import Query, budget_batches
from lightning_icl.errors import NumericalError
from lightning_icl.models.capture import Capture
from lightning_icl.probing._backoff import Backoff
from lightning_icl.probing._loss import language_modelling
from lightning_icl.probing._passes import Pass, prepared
from lightning_icl.probing.finetuning import Run
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition, Demonstrations, QueryBatch


class HeldOutAccuracy(LightningModule):
    """Accuracy of several conditions; `Trainer.validate` on `batches_of(queries, ...)` fills `accuracy`.

    Args:
        model: the model under study.
        conditions: what to look at, each under a name of its own.
        demonstrations: whose loss is measured under every condition too; None for none.
    """

    def __init__(
        self, model: PreTrainedModel, conditions: Sequence[Condition], demonstrations: Demonstrations | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.conditions, self.demonstrations = conditions, demonstrations
        self.accuracy: dict[str, float] = {}
        self.loss: dict[str, float] = {}
        """Mean over queries of the gold answer's negative log-probability, in nats per token."""
        self.demonstration_loss: dict[str, float] = {}
        """Mean over the demonstrations of the loss that fine-tuning learns from, all under a condition's weights."""
        self.dropped: dict[str, str] = {}
        """Conditions that yielded NaN, with the reason."""
        self._views: dict[str, View] = {}
        self._backoff = Backoff()
        self._right: dict[str, int] = {}
        self._lost: dict[str, float] = {}
        self._seen = 0

    @cached_property
    def capture(self) -> Capture:
        """The visit to the model, opened for the length of a step."""
        return Capture(self.model)

    def on_validation_epoch_start(self) -> None:
        """Make every condition ready."""
        with self.capture, self.trainer.precision_plugin.forward_context():
            self._views = prepared(self.capture, self.conditions)
            if self.demonstrations is not None:
                run = Run(learning_rate=1.0, demonstrations=self.demonstrations)
                self.demonstration_loss = {name: self._loss_of(run, view) for name, view in self._views.items()}
        self._right, self._lost, self._seen = dict.fromkeys(self._views, 0), dict.fromkeys(self._views, 0.0), 0

    def _loss_of(self, run: Run, view: View) -> float:
        with view.overlay.active() if view.overlay else nullcontext():
            losses = [
                language_modelling(
                    self.capture, torch.tensor([run.tokens(step)], device=self.device), [run.learnt(step)]
                )[0]
                for step in range(len(run.demonstrations))
            ]
        return float(torch.cat(losses).double().mean())

    def validation_step(self, batch: QueryBatch, batch_idx: int) -> None:
        """Count right answers under every condition."""
        self._seen += len(batch.gold)
        with self.capture:
            queries = Pass(self.capture, self._views, batch, self._backoff)
            for name in self._views:
                if name not in self.dropped:
                    try:
                        queries.look(name)
                        scores = queries.scores[name]
                        self._right[name] += int(torch.sum(scores.argmax(-1) == batch.gold))
                        self._lost[name] -= float(scores.gather(1, batch.gold[:, None]).double().sum())
                    except NumericalError as error:
                        self.dropped[name] = str(error)
                    queries.forget(name)

    def on_validation_epoch_end(self) -> None:
        """From counts to shares."""
        self.accuracy = {name: count / self._seen for name, count in self._right.items() if name not in self.dropped}
        self.loss = {name: lost / self._seen for name, lost in self._lost.items() if name not in self.dropped}
        self._views = {}


def batches_of(queries: Sequence[Query], batch_tokens: int) -> DataLoader[QueryBatch]:
    """Queries in batches of a token budget."""
    return DataLoader(QueryBatches(budget_batches(queries, batch_tokens)), batch_size=None, shuffle=False)
