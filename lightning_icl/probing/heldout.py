"""What fine-tuning does on queries held out of the training split, and on the demonstrations that it learnt from."""

from collections.abc import Sequence
from functools import cached_property

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from lightning_icl.data.batches import share_loader
from lightning_icl.data.queries import Query
from lightning_icl.data.settings import BatchTokens
from lightning_icl.metrics.gathering import gathered
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import LaidOver, overlaid
from lightning_icl.models.rotary import length_scaling
from lightning_icl.probing._backoff import Backoff
from lightning_icl.probing._loss import language_modelling
from lightning_icl.probing._passes import Pass, prepared
from lightning_icl.probing.finetuning_run import FinetuningRun
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition, Demonstrations, KVOverlay, QueryBatch

# Logits that a batch of demonstrations may have: 256 MB in float32.
_LOGITS = 1 << 26


class HeldOutAccuracy(LightningModule):
    """Accuracy of several conditions; `Trainer.validate`, which needs no other data, fills `accuracy`.

    Args:
        model: the model under study.
        conditions: what to look at, each under a name of its own.
        queries: looked at under every one of them, divided among processes.
        batch_tokens: tokens in a batch of them, or `auto`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        conditions: Sequence[Condition],
        queries: Sequence[Query],
        batch_tokens: BatchTokens = "auto",
    ) -> None:
        super().__init__()
        self.model, self.conditions = model, conditions
        self._queries, self._batch_tokens = queries, batch_tokens
        self.accuracy: dict[str, float] = {}
        self.loss: dict[str, float] = {}
        """Mean over queries of the gold answer's negative log-probability, in nats per token."""
        self.dropped: dict[str, str] = {}
        """Fine-tuned conditions that yielded NaN, with the reason."""
        self._views: dict[str, View] = {}
        self._backoff = Backoff()
        self._right: dict[str, int] = {}
        self._lost: dict[str, float] = {}
        self._seen = 0

    @cached_property
    def capture(self) -> Capture:
        """The visit to the model, opened for the length of a step."""
        return Capture(self.model)

    def val_dataloader(self) -> DataLoader[QueryBatch]:
        """This process's share of the queries."""
        return share_loader(self._queries, self._batch_tokens, self.trainer)

    def on_validation_epoch_start(self) -> None:
        """Make every condition ready."""
        with self.capture, self.trainer.precision_plugin.forward_context():
            self._views = prepared(self.capture, self.conditions)
        self._right, self._lost, self._seen = dict.fromkeys(self._views, 0), dict.fromkeys(self._views, 0.0), 0

    def validation_step(self, batch: QueryBatch, batch_idx: int) -> None:
        """Count right answers under every condition."""
        if not len(batch.gold):  # this process's share is empty; see `share_loader`
            return
        self._seen += len(batch.gold)
        with self.capture:
            queries = Pass(self.capture, self._views, batch, self._backoff, self.dropped)
            for name in self._views:
                queries.observe(name)
                if name in queries.scores:
                    scores = queries.scores[name]
                    self._right[name] += int(torch.sum(scores.argmax(-1) == batch.gold))
                    self._lost[name] -= float(scores.gather(1, batch.gold[:, None]).double().sum())
                queries.forget(name)

    def on_validation_epoch_end(self) -> None:
        """From the counts of all processes to shares."""
        counts = gathered((self._right, self._lost, self._seen, self.dropped))
        seen = sum(own for _, _, own, _ in counts)
        # Dropped by one process, dropped by all: they must choose the same.
        self.dropped = {name: reason for _, _, _, own in counts for name, reason in own.items()}
        sound = [name for name in self._views if name not in self.dropped]
        self.accuracy = {name: sum(right[name] for right, _, _, _ in counts) / seen for name in sound}
        self.loss = {name: sum(lost[name] for _, lost, _, _ in counts) / seen for name in sound}
        self._views = {}


class DemonstrationLoss(LightningModule):
    """Mean of the loss that fine-tuning learns from, under the same weights for every demonstration.

    `Trainer.validate`, which needs no other data, fills `loss`.

    Args:
        model: the model under study.
        demonstrations: learnt from.
        overlay: what was learnt; None for the model as it is.
    """

    def __init__(self, model: PreTrainedModel, demonstrations: Demonstrations, overlay: KVOverlay | None) -> None:
        super().__init__()
        self.model, self.overlay = model, overlay
        self.loss = float("nan")
        """In nats per token; each demonstration counts the same."""
        self._run = FinetuningRun(learning_rate=1.0, demonstrations=demonstrations)
        self._losses: list[Tensor] = []
        self._laid_over: LaidOver | None = None

    def val_dataloader(self) -> DataLoader[list[int]]:
        """Numbers of demonstrations in batches of like length, whose logits over the vocabulary stay small."""
        lengths = [len(self._run.tokens(step)) for step in range(len(self._run.demonstrations))]
        # Padding would turn shorter examples at other angles where rotary scaling goes by length.
        budget = (
            0 if length_scaling(self.model.config) else _LOGITS // self.model.get_output_embeddings().weight.shape[0]
        )
        batches: list[list[int]] = []
        for step in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
            if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
                batches[-1].append(step)
            else:
                batches.append([step])
        return DataLoader(batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def on_validation_epoch_start(self) -> None:
        """Make what was learnt ready, once for all batches."""
        self._laid_over = LaidOver(self.model, self.overlay) if self.overlay else None

    def validation_step(self, steps: list[int], batch_idx: int) -> None:
        """The losses of a batch."""
        tokens = pad_sequence([torch.tensor(self._run.tokens(step)) for step in steps], batch_first=True)
        with Capture(self.model) as capture, overlaid(self._laid_over):
            spans = [self._run.learnt(step) for step in steps]
            self._losses.append(language_modelling(capture, tokens.to(self.device), spans)[0])

    def on_validation_epoch_end(self) -> None:
        """From losses to their mean."""
        self.loss = float(torch.cat(self._losses).double().mean())
        self._losses, self._laid_over = [], None
