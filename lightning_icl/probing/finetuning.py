"""Restricted fine-tuning as a callback of `Trainer.fit` (Dai et al., section 4.1; definitions, section 2).

Only key and value projections learn, by one plain SGD step for each demonstration, in prompt order, on the causal
language-modelling loss over all tokens of the example. Steps are taken on float32 masters; the model itself gets its
own weights back when fitting ends, and what was learnt is an overlay.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.errors import NumericalError, ProtocolError
from lightning_icl.models.kv import GradientGate, Masters, Trained
from lightning_icl.probing.layer_causal import Reading
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

    Args:
        learning_rate: rate of the plain SGD steps.
        trained: what learns; a control may train the query projections or everything instead.
        layer_causal: which outputs make each layer's own loss (`probing.layer_causal`); None for the model's loss.

    Raises:
        ProtocolError: the Trainer or the data would break the protocol.
    """

    def __init__(self, learning_rate: float, trained: Trained = "kv", layer_causal: Reading | None = None) -> None:
        if not (math.isfinite(learning_rate) and learning_rate > 0):
            raise ProtocolError(f"--lr {learning_rate}: the learning rate must be a positive number.")
        self.learning_rate = learning_rate
        self.trained: Trained = trained
        self.layer_causal: Reading | None = layer_causal
        self._masters: Masters | None = None
        self._gate: GradientGate | None = None
        self._queries: list[list[Tensor]] = []
        self._losses: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the Trainer's side of the protocol; from here on gradients reach what is trained only."""
        if stage == "fit":
            check_trainer(trainer)
            probe = self._probe(pl_module)
            probe.finetuning = self
            self._gate = GradientGate(probe.model, self.trained)

    def begin(self, model: PreTrainedModel) -> list[nn.Parameter]:
        """The parameters to optimise."""
        self._masters, self._queries, self._losses = Masters(model, self.trained), [], []
        return self._masters.parameters

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the number of steps."""
        steps, wanted = trainer.num_training_batches, len(self._probe(pl_module).demonstrations)
        if steps != wanted:
            raise ProtocolError(
                f"Fine-tuning takes one step for each of the {wanted} demonstrations; the training data has {steps} "
                "batches. Use ICLDataModule, or a DataLoader over the same examples with batch_size=1."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int) -> None:
        """Check that this step's example is the demonstration whose turn it is, and keep dropout off."""
        probe = self._probe(pl_module)
        probe.model.eval()
        expected = [[*probe.demonstrations.bos, *probe.demonstrations.examples[batch_idx]]]
        if not torch.is_tensor(batch) or batch.tolist() != expected:
            raise ProtocolError(
                f"Step {batch_idx} of the fine-tuning is not demonstration {batch_idx} alone: it must take one "
                "demonstration a step, in prompt order. Use batch_size=1 and no shuffling (under several processes "
                "Trainer(use_distributed_sampler=False)), or ICLDataModule."
            )

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the model's gradients to the masters."""
        assert self._masters is not None
        self._masters.collect_gradients()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        """Write the stepped masters into the model; keep the step's loss and query vectors."""
        assert self._masters is not None
        self._masters.write()
        bos = len(self._probe(pl_module).demonstrations.bos)
        self._queries.append([queries[0, bos:] for queries in outputs["queries"]])
        self._losses.append(float(outputs["loss"]))
        if not math.isfinite(self._losses[-1]):
            raise NumericalError(
                f"The fine-tuning loss became {self._losses[-1]} at step {batch_idx} (learning rate "
                f"{self.learning_rate}). Use a smaller --lr."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave what was learnt with the probe, and the model as it was."""
        assert self._masters is not None
        probe = self._probe(pl_module)
        probe.finetuned = Finetuned(
            overlay=self._masters.overlay(),
            learning_rate=self.learning_rate,
            losses=tuple(self._losses),
            update_norms=tuple(self._masters.update_norms()),
            training_queries=training_queries(self._queries, probe.demonstrations),
        )
        self._release()
        _check_same_everywhere(probe.finetuned.overlay)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the model its weights back even when fitting fails."""
        self._release()

    def _release(self) -> None:
        if self._masters is not None:
            self._masters.restore()
        if self._gate is not None:
            self._gate.open()
        self._masters, self._gate, self._queries = None, None, []

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


def check_trainer(trainer: Trainer) -> None:
    """Refuse a Trainer whose settings would change what fine-tuning means.

    Raises:
        ProtocolError: with the setting, its value, and the value it must have.
    """
    settings = (
        ("max_epochs", trainer.max_epochs, 1),
        ("max_steps", trainer.max_steps, -1),
        ("accumulate_grad_batches", trainer.accumulate_grad_batches, 1),
        ("gradient_clip_val", trainer.gradient_clip_val or None, None),
        ("limit_train_batches", trainer.limit_train_batches, 1.0),
        ("overfit_batches", getattr(trainer, "overfit_batches", 0.0), 0.0),
        ("fast_dev_run", bool(getattr(trainer, "fast_dev_run", False)), False),
    )
    for name, given, needed in settings:
        if given != needed:
            raise ProtocolError(
                f"Trainer({name}={given}) breaks the fine-tuning protocol (one epoch, one plain SGD step for each "
                f"demonstration). Set {name}={needed}."
            )
    if str(trainer.precision).startswith("16"):
        raise ProtocolError(
            f"Trainer(precision={trainer.precision!r}): gradients underflow in float16. Use 32-true, bf16-true or "
            "bf16-mixed."
        )


def _check_same_everywhere(overlay: KVOverlay) -> None:
    """Every process must have ended with the same bits."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    hashes: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(hashes, overlay.hash)
    if len(set(hashes)) > 1:
        raise ProtocolError(f"Processes ended fine-tuning with different weights: {hashes}. Use the same devices.")
