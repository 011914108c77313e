"""Restricted fine-tuning as a callback of `Trainer.fit` (Dai et al., section 4.1; definitions, section 2).

Only key and value projections learn, by one plain SGD step for each demonstration, in prompt order, on the causal
language-modelling loss over all tokens of the example. Steps are taken on float32 masters, the model itself is never
written, and what was learnt is an overlay.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from transformers import PreTrainedModel

from lightning_icl.errors import NumericalError, ProtocolError
from lightning_icl.metrics.gathering import gathered
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import GradientGate, Trained
from lightning_icl.models.masters import Masters, PlainSGD
from lightning_icl.probing._loss import TrainingLoss, language_modelling
from lightning_icl.probing._protocol import (
    check_settings,
    check_trainer,
    check_untouched,
    checksums,
    fit_from_the_start,
    keep_gradients_apart,
)
from lightning_icl.probing.finetuning_run import Finetuned, FinetuningProgress, FinetuningRun, check_rate, step_tokens
from lightning_icl.probing.layer_causal import Reading
from lightning_icl.probing.layer_causal import layer_causal as layer_causal_loss
from lightning_icl.records import Demonstrations


class Finetunable(Protocol):
    """What `KVFinetuning` fits: a LightningModule with a model and its demonstrations, as `ICLProbe` is."""

    model: PreTrainedModel
    demonstrations: Demonstrations
    finetuning: "KVFinetuning | None"
    finetuned: Finetuned | None


def _is_finetunable(module: object) -> TypeGuard[Finetunable]:
    # By hand: from Python 3.12 on, `isinstance` of a protocol does not see a module's submodules, such as `model`.
    return all(hasattr(module, name) for name in ("model", "demonstrations", "finetuning", "finetuned"))


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
        check_rate(learning_rate)
        self.learning_rate = learning_rate
        self.trained: Trained = trained
        self._loss: TrainingLoss = language_modelling if layer_causal is None else layer_causal_loss(layer_causal)
        self._masters: Masters | None = None
        self._gate: GradientGate | None = None
        self._before: dict[str, int] = {}
        self._progress: list[FinetuningProgress] = []
        self._rows: list[int] = []
        """Of each row of the masters, the number of its run."""
        self._rates: list[float] = []

    def runs(self, probe: Finetunable) -> Sequence[FinetuningRun]:
        """What learns side by side: here one run, on the probe's demonstrations."""
        return [FinetuningRun(learning_rate=self.learning_rate, demonstrations=probe.demonstrations)]

    def own(self, trainer: Trainer) -> list[int]:
        """Numbers of the runs that this process makes: here all."""
        return list(range(len(self._progress)))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the Trainer's side of the protocol; from here on gradients reach what is trained only."""
        if stage == "fit":
            check_trainer(trainer)
            # Two would both take steps, with rates of their own.
            others = [item for item in trainer.callbacks if isinstance(item, KVFinetuning)]  # type: ignore[attr-defined]
            if len(others) > 1:
                raise ProtocolError(f"The Trainer has {len(others)} callbacks KVFinetuning; one fit takes one.")
            fit_from_the_start(trainer)
            probe = self._probe(pl_module)
            # Cleared first: a fit that fails must not leave an older fine-tuning behind.
            probe.finetuning, probe.finetuned = self, None
            self._progress = [FinetuningProgress(run=run) for run in self.runs(probe)]
            self._rows = self.own(trainer)
            self._rates = [self._progress[number].run.learning_rate for number in self._rows]
            self._gate = GradientGate(probe.model, self.trained)

    def optimizer(self, model: PreTrainedModel) -> torch.optim.Optimizer:
        """Plain SGD on float32 masters of what is trained."""
        self._masters = Masters(model, self.trained, len(self._rows))
        return PlainSGD(self._masters, self._rates)

    def loss(self, capture: Capture, token_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Losses of the runs that still learn (row,), and per layer their query vectors, under the weights learnt.

        Args:
            capture: an open visit to the model.
            token_ids: `BOS ex_i` of every run that has this step (run, token), padded at the end.
        """
        # The masters know how many steps were taken, whatever Lightning's counters say.
        step = self.masters.steps
        # Runs with fewer demonstrations have no row in this step's batch, and rows close up.
        in_batch = [number for number, progress in enumerate(self._progress) if step < len(progress.run.demonstrations)]
        spans = [self._progress[number].run.learnt(step) for number in self._rows]
        rows = [in_batch.index(number) for number in self._rows]
        # As wide as the group's longest example, whoever has left: other widths round in other ways.
        with self.masters.in_use():
            return self._loss(capture, token_ids[rows], spans)

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
        steps = trainer.num_training_batches
        needed = max(len(progress.run.demonstrations) for progress in self._progress)
        if steps != needed:
            raise ProtocolError(
                f"Fine-tuning takes one step for each of the {needed} demonstrations; the training data has {steps} "
                "batches. Use ICLDataModule, or a DataLoader over the same examples with batch_size=1."
            )
        keep_gradients_apart(trainer)
        # A sum per parameter costs one pass over the model and detects any write.
        self._before = checksums(self._probe(pl_module).model)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int) -> None:
        """Check that this step's example is the demonstration whose turn it is, in every run."""
        # Again at every step: callbacks can change a Trainer's settings while it runs.
        check_settings(trainer)
        if not torch.is_tensor(batch) or batch.tolist() != step_tokens(
            [progress.run for progress in self._progress], batch_idx
        ):
            raise ProtocolError(
                f"Step {batch_idx} of the fine-tuning is not demonstration {batch_idx} alone: it must take one "
                "demonstration a step, in prompt order. Use batch_size=1 and no shuffling (under several processes "
                "Trainer(use_distributed_sampler=False)), or ICLDataModule."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        """Check that one step was taken; keep its losses and query vectors."""
        if self.masters.steps != batch_idx + 1:
            raise ProtocolError(
                f"{self.masters.steps} steps were taken for {batch_idx + 1} demonstrations: a callback or plugin of "
                "the Trainer keeps the optimizer from its step. Leave it out."
            )
        losses = outputs["losses"].tolist()
        for row, number in enumerate(self._rows):
            self._progress[number].record(losses[row], [queries[row] for queries in outputs["queries"]])
            if not math.isfinite(losses[row]):
                self.diverge(
                    number,
                    f"The fine-tuning loss became {losses[row]} at step {batch_idx} (learning rate "
                    f"{self._rates[row]}). Use a smaller --lr.",
                )

    def diverge(self, number: int, message: str) -> None:
        """A run's loss is NaN or infinite.

        Raises:
            NumericalError: always; a group goes on with its others.
        """
        raise NumericalError(message)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand what was learnt to the probe."""
        probe = self._probe(pl_module)
        for number in self._rows:
            progress = self._progress[number]
            if not progress.complete:
                raise ProtocolError(
                    f"Fine-tuning stopped after {len(progress.losses)} of {len(progress.run.demonstrations)} "
                    "demonstrations. Leave out what stops the Trainer early."
                )
        self.leave(probe)

    def leave(self, probe: Finetunable) -> None:
        """Store what was learnt where the probe looks for it."""
        probe.finetuned = self._progress[0].finetuned(self.masters, 0)
        check_same_everywhere([probe.finetuned])

    def so_far(self, probe: Finetunable) -> Finetuned | None:
        """What was learnt up to the last step; None where nothing has been fitted, or it is no single run."""
        if self._masters is None:
            return probe.finetuned
        return self._progress[0].finetuned(self._masters, 0) if len(self._progress) == len(self._rows) == 1 else None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, after all other callbacks, that the model is as it was."""
        probe, before = self._probe(pl_module), self._before
        self._release(probe)
        try:
            check_untouched(before, probe.model)
        except ProtocolError:
            # What was learnt cannot be trusted either, since steps were taken on changed weights.
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
        self._masters, self._gate, self._progress, self._before = None, None, [], {}
        # Only if it is ours: another callback may have taken over meanwhile.
        if _is_finetunable(module) and module.finetuning is self:
            module.finetuning = None

    @staticmethod
    def _probe(module: LightningModule) -> Finetunable:
        if not _is_finetunable(module):
            raise ProtocolError(f"KVFinetuning fits an ICLProbe, not a {type(module).__name__}.")
        return module


def check_same_everywhere(tuned: Sequence[Finetuned]) -> None:
    """Every process must have ended with the same bits.

    Raises:
        ProtocolError: they have not.
    """
    # Hashes travel instead of weights.
    hashes = gathered(tuple(item.overlay.hash for item in tuned))
    if len(set(hashes)) > 1:
        raise ProtocolError(f"Processes ended fine-tuning with different weights: {hashes}. Use the same devices.")
