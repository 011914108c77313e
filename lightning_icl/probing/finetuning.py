"""Restricted fine-tuning as a callback of `Trainer.fit` (Dai et al., section 4.1; definitions, section 2).

Only key and value projections learn, by one plain SGD step for each demonstration, in prompt order, on the causal
language-modelling loss over all tokens of the example. Steps are taken on float32 masters, the model itself is never
written, and what was learnt is an overlay.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from transformers import PreTrainedModel

from lightning_icl.errors import NumericalError, ProtocolError
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import GradientGate, Trained
from lightning_icl.models.masters import Masters, PlainSGD
from lightning_icl.probing.layer_causal import Reading
from lightning_icl.probing.layer_causal import layer_causal as layer_causal_loss
from lightning_icl.probing.loss import TrainingLoss, language_modelling
from lightning_icl.probing.protocol import (
    check_settings,
    check_trainer,
    check_untouched,
    checksums,
    fit_from_the_start,
    keep_gradients_apart,
)
from lightning_icl.records import Demonstrations, KVOverlay


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What restricted fine-tuning leaves behind."""

    overlay: KVOverlay
    """The learnt key/value parameters."""
    learning_rate: float
    """Rate of the SGD steps."""
    losses: tuple[float, ...]
    """Loss of each step, in nats per token."""
    update_norms: tuple[float, ...]
    """Per layer the Frobenius norm of the change of what was trained."""
    training_queries: Tensor | None
    """Query vectors (layer, prefix, query_width) of the training tokens at their steps; 0 at BOS and SEP."""


@runtime_checkable
class Finetunable(Protocol):
    """What `KVFinetuning` fits: a LightningModule with a model and its demonstrations, as `ICLProbe` is."""

    model: PreTrainedModel
    demonstrations: Demonstrations
    finetuning: "KVFinetuning | None"
    finetuned: Finetuned | None


class KVFinetuning(Callback):
    """Fine-tune key and value projections on the demonstrations, once each.

    The same Trainer may fit again, the same probe or another one. The model is never written; its parameters' own
    `requires_grad` flags come back when fitting ends, whatever ends it.

    Args:
        learning_rate: rate of the plain SGD steps.
        trained: what learns; a control may train the query projections or everything instead.
        layer_causal: which outputs make each layer's own loss (`probing.layer_causal`); None for the model's loss.

    Raises:
        ProtocolError: the Trainer or the data would break the protocol, or something has broken it.
    """

    def __init__(self, learning_rate: float, trained: Trained = "kv", layer_causal: Reading | None = None) -> None:
        if not (math.isfinite(learning_rate) and learning_rate > 0):
            raise ProtocolError(f"--lr {learning_rate}: the learning rate must be a positive number.")
        self.learning_rate = learning_rate
        self.trained: Trained = trained
        self._loss: TrainingLoss = language_modelling if layer_causal is None else layer_causal_loss(layer_causal)
        self._masters: Masters | None = None
        self._gate: GradientGate | None = None
        self._before: dict[str, int] = {}
        self._given = 0
        self._queries: list[list[Tensor]] = []
        self._losses: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the Trainer's side of the protocol; from here on gradients reach what is trained only."""
        if stage == "fit":
            check_trainer(trainer)
            others = [item for item in trainer.callbacks if isinstance(item, KVFinetuning)]  # type: ignore[attr-defined]
            if len(others) > 1:
                raise ProtocolError(f"The Trainer has {len(others)} callbacks KVFinetuning; one fit takes one.")
            fit_from_the_start(trainer)
            probe = self._probe(pl_module)
            probe.finetuning, probe.finetuned = self, None
            self._given = probe.demonstrations.first_learnt - 1  # of a chat's header all but the last token is left out
            self._gate = GradientGate(probe.model, self.trained)

    def optimizer(self, model: PreTrainedModel) -> torch.optim.Optimizer:
        """Plain SGD on float32 masters of what is trained."""
        self._masters, self._queries, self._losses = Masters(model, self.trained), [], []
        return PlainSGD(self._masters, self.learning_rate)

    def loss(self, capture: Capture, token_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Loss of a demonstration, and per layer its query vectors (1, token, query_width), under the weights learnt.

        Args:
            capture: an open visit to the model.
            token_ids: `BOS ex_i` (1, token).
        """
        with self.masters.in_use():
            losses, queries = self._loss(capture, token_ids, [slice(self._given, token_ids.shape[1])])
        return losses.sum(), queries

    @property
    def masters(self) -> Masters:
        """What learns, while fitting.

        Raises:
            RuntimeError: nothing is being fitted.
        """
        if self._masters is None:
            raise RuntimeError("Nothing is being fine-tuned.")
        return self._masters

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the number of steps."""
        probe = self._probe(pl_module)
        steps, wanted = trainer.num_training_batches, len(probe.demonstrations)
        if steps != wanted:
            raise ProtocolError(
                f"Fine-tuning takes one step for each of the {wanted} demonstrations; the training data has {steps} "
                "batches. Use ICLDataModule, or a DataLoader over the same examples with batch_size=1."
            )
        keep_gradients_apart(trainer)
        self._before = checksums(probe.model)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int) -> None:
        """Check that this step's example is the demonstration whose turn it is."""
        check_settings(trainer)
        probe = self._probe(pl_module)
        expected = [[*probe.demonstrations.bos, *probe.demonstrations.examples[batch_idx]]]
        if not torch.is_tensor(batch) or batch.tolist() != expected:
            raise ProtocolError(
                f"Step {batch_idx} of the fine-tuning is not demonstration {batch_idx} alone: it must take one "
                "demonstration a step, in prompt order. Use batch_size=1 and no shuffling (under several processes "
                "Trainer(use_distributed_sampler=False)), or ICLDataModule."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        """Check that one step was taken; keep its loss and query vectors."""
        if self.masters.steps != batch_idx + 1:
            raise ProtocolError(
                f"{self.masters.steps} steps were taken for {batch_idx + 1} demonstrations: a callback or plugin of "
                "the Trainer keeps the optimizer from its step. Leave it out."
            )
        bos = len(self._probe(pl_module).demonstrations.bos)
        self._queries.append([queries[0, bos:] for queries in outputs["queries"]])
        self._losses.append(float(outputs["loss"]))
        if not math.isfinite(self._losses[-1]):
            raise NumericalError(
                f"The fine-tuning loss became {self._losses[-1]} at step {batch_idx} (learning rate "
                f"{self.learning_rate}). Use a smaller --lr."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave what was learnt with the probe."""
        probe = self._probe(pl_module)
        if len(self._losses) != len(probe.demonstrations):
            raise ProtocolError(
                f"Fine-tuning stopped after {len(self._losses)} of {len(probe.demonstrations)} demonstrations. Leave "
                "out what stops the Trainer early."
            )
        probe.finetuned = self.so_far(probe)
        assert probe.finetuned is not None
        _check_same_everywhere(probe.finetuned.overlay)

    def so_far(self, probe: Finetunable) -> Finetuned | None:
        """What was learnt up to the last step, without query vectors before the end; None where nothing is fitted."""
        if self._masters is None:
            return probe.finetuned
        at_the_end = len(self._losses) == len(probe.demonstrations)
        return Finetuned(
            overlay=self._masters.overlay(),
            learning_rate=self.learning_rate,
            losses=tuple(self._losses),
            update_norms=tuple(self._masters.update_norms()),
            training_queries=training_queries(self._queries, probe.demonstrations) if at_the_end else None,
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, after all other callbacks, that the model is as it was."""
        probe, before = self._probe(pl_module), self._before
        self._release(probe)
        try:
            check_untouched(before, probe.model)
        except ProtocolError:
            probe.finetuned = None
            raise

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the model even when fitting fails."""
        self._release(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the model where there was nothing to fit."""
        self._release(pl_module)

    def _release(self, module: object) -> None:
        if self._gate is not None:
            self._gate.open()
        self._masters, self._gate, self._queries, self._before = None, None, [], {}
        if isinstance(module, Finetunable) and module.finetuning is self:
            module.finetuning = None

    @staticmethod
    def _probe(module: LightningModule) -> Finetunable:
        if not isinstance(module, Finetunable):
            raise ProtocolError(f"KVFinetuning fits an ICLProbe, not a {type(module).__name__}.")
        return module


def training_queries(steps: list[list[Tensor]], demonstrations: Demonstrations) -> Tensor:
    """Each step's query vectors, put where the prompt has the same tokens: (layer, prefix, query_width).

    Raises:
        RuntimeError: fine-tuning saw another number of tokens than the prompt holds.
    """
    places = [place for place, number in enumerate(demonstrations.token_example) if number >= 0]
    recorded = sum(len(step[0]) for step in steps)
    if len(places) != recorded:
        raise RuntimeError(f"{recorded} training tokens were recorded; the prompt has {len(places)}.")
    first = steps[0]
    placed = first[0].new_zeros(len(first), len(demonstrations.token_example), first[0].shape[-1])
    index = torch.tensor(places, device=placed.device)
    for layer, tokens in enumerate(zip(*steps, strict=True)):
        placed[layer].index_copy_(0, index, torch.cat(tokens))
    return placed


def _check_same_everywhere(overlay: KVOverlay) -> None:
    """Every process must have ended with the same bits."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    hashes: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(hashes, overlay.hash)
    if len(set(hashes)) > 1:
        raise ProtocolError(f"Processes ended fine-tuning with different weights: {hashes}. Use the same devices.")
