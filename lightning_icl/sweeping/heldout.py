"""Fine-tuned accuracy on queries held out of the training split, by which a sweep chooses seed and learning rate."""

from collections.abc import Sequence
from functools import cached_property

import torch
from lightning import LightningModule
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from lightning_icl.data.module import QueryBatches
from lightning_icl.data.queries import Query, budget_batches
from lightning_icl.errors import NumericalError
from lightning_icl.models.capture import Capture
from lightning_icl.probing.backoff import Backoff
from lightning_icl.probing.observation import View
from lightning_icl.probing.passes import Pass, prepared
from lightning_icl.records import Condition, QueryBatch


class HeldOutAccuracy(LightningModule):
    """Accuracy of several conditions; `Trainer.validate` on `batches_of(queries, ...)` fills `accuracy`.

    Args:
        model: the model under study.
        conditions: what to look at, each under a name of its own.
    """

    def __init__(self, model: PreTrainedModel, conditions: Sequence[Condition]) -> None:
        super().__init__()
        self.model = model
        self.conditions = conditions
        self.accuracy: dict[str, float] = {}
        self.dropped: dict[str, str] = {}
        """Conditions that yielded NaN, with the reason."""
        self._views: dict[str, View] = {}
        self._backoff = Backoff()
        self._right: dict[str, int] = {}
        self._seen = 0

    @cached_property
    def capture(self) -> Capture:
        """The visit to the model, opened for the length of a step."""
        return Capture(self.model)

    def on_validation_epoch_start(self) -> None:
        """Make every condition ready."""
        with self.capture, self.trainer.precision_plugin.forward_context():
            self._views = prepared(self.capture, self.conditions)
        self._right, self._seen = dict.fromkeys(self._views, 0), 0

    def validation_step(self, batch: QueryBatch, batch_idx: int) -> None:
        """Count right answers under every condition."""
        self._seen += len(batch.gold)
        with self.capture:
            queries = Pass(self.capture, self._views, batch, self._backoff)
            for name in self._views:
                if name not in self.dropped:
                    try:
                        queries.look(name)
                        self._right[name] += int(torch.sum(queries.scores[name].argmax(-1) == batch.gold))
                    except NumericalError as error:
                        self.dropped[name] = str(error)
                    queries.forget(name)

    def on_validation_epoch_end(self) -> None:
        """From counts to shares."""
        self.accuracy = {name: count / self._seen for name, count in self._right.items() if name not in self.dropped}
        self._views = {}


def batches_of(queries: Sequence[Query], batch_tokens: int) -> DataLoader[QueryBatch]:
    """Queries in batches of a token budget."""
    return DataLoader(QueryBatches(budget_batches(queries, batch_tokens)), batch_size=None, shuffle=False)
