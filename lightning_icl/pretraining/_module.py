"""Causal language modelling: the LightningModule."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torchmetrics.aggregation import MeanMetric

from lightning_icl.models.momentum.registration import enable_momentum
from lightning_icl.models.momentum.settings import has_momentum, learnt_momentum
from lightning_icl.pretraining._adaptation import adaptation_loss, take_apart
from lightning_icl.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Tokens up to which a processor is faster with whole tables of attention than with its tiled kernel.
_SHORT_ROW = 256


class CausalPretraining(LightningModule):
    """A causal language model in training; answer tokens weigh more in the loss than the rest.

    Args:
        model: to be trained.
        settings: of the training.
        end: the EOS token, which stands behind every example of a document.
    """

    def __init__(self, model: "PreTrainedModel", settings: PretrainSettings, end: int) -> None:
        super().__init__()
        self.model, self.settings, self.end = model, settings, end
        self.held_out = MeanMetric()
        self.measured: list[str] = []
        """Names of what the last batch logged."""

    def setup(self, stage: str) -> None:
        """Make momentum attention known here too: a spawned process is given its model ready made."""
        # Registration is a matter of the process and does not travel with the model.
        enable_momentum()
        # Two lengths only, each worth kernels of its own.
        self._training_losses = torch.compile(self._losses, dynamic=False) if self.settings.compile else self._losses

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Draw dropout afresh from seed, batch and process, so that a resumed run draws the same."""
        self.measured = []
        # Otherwise dropout of a resumed run would depend on where it stopped.
        torch.manual_seed(hash((self.settings.seed, batch_idx, self.global_rank)))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Weighted mean negative log-likelihood, in nats per token."""
        length = self.settings.short_block if self.global_step < self.settings.short_steps else self.settings.block
        ids, weights, positions = (rows.view(-1, length) for rows in batch)
        logits, losses = self._training_losses(ids, positions)
        # The first token of a row is predicted by nothing.
        weights = weights[:, 1:]
        loss = (losses * weights).sum() / weights.sum()
        # Answer tokens are told by their weight, which needs no tensor of its own.
        answers = weights > 1
        self._show("loss", loss, sync_dist=True)
        if answers.any():
            self._show("answer_loss", losses[answers].mean())
            # Of the answers alone: other tokens need no look through the vocabulary.
            self._show("answer_accuracy", (logits[answers].argmax(-1) == ids[:, 1:][answers]).float().mean())
        # Asked first: a plain model's parameters need not be looked through at every step.
        if has_momentum(self.model):
            self._log_momentum()
        # A second loss on the same batch, from the first block only.
        adapted = self._adaptation_loss(batch)
        return loss if adapted is None else loss + adapted

    def _show(self, name: str, value: Tensor, *, sync_dist: bool = False) -> None:
        """Log a figure of this batch, in the bar too."""
        self.log(name, value.detach(), prog_bar=True, sync_dist=sync_dist)
        self.measured.append(name)

    def _log_momentum(self) -> None:
        """Log least, mean and greatest of the η and gates that are learnt, over all heads."""
        for name, layers in learnt_momentum(self.model).items():
            heads = torch.cat(layers)
            for figure, value in (("least", heads.min()), ("mean", heads.mean()), ("most", heads.max())):
                # Not in the bar, which losses fill already.
                self.log(f"{name}_{figure}", value)
                self.measured.append(f"{name}_{figure}")

    def _adaptation_loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor | None:
        """That of the batch's first block, since its steps follow each other; None where there is none."""
        if self.settings.adapt_rate is None:
            return None
        examples = take_apart(batch[0][0], batch[1][0], self.end)
        loss = adaptation_loss(self.model, examples, self.settings.adapt_rate, self.settings.adapt_shots)
        if loss is not None:
            self._show("adapted_answer_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Mean negative log-likelihood of held-out text, in nats per predicted token."""
        _, losses = self._losses(*batch)
        # Weighted by tokens: the last batch may be shorter.
        self.held_out.update(losses.mean(), weight=losses.numel())

    def on_validation_epoch_end(self) -> None:
        """Log loss and perplexity over all held-out blocks."""
        loss = self.held_out.compute()
        self.log("validation_loss", loss, rank_zero_only=True)
        self.log("validation_perplexity", loss.exp(), prog_bar=True, rank_zero_only=True)
        self.held_out.reset()

    def _losses(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (row, token − 1, vocabulary) and losses (row, token − 1) of the tokens after the first."""
        # Without position ids, attention runs across documents, as in most pretraining.
        where = {"position_ids": positions} if self.settings.separate_documents else {}
        with _attention_kernel(ids):
            logits = self.model(input_ids=ids, use_cache=False, **where).logits[:, :-1]
        targets = ids[:, 1:]
        # float32: a softmax over the vocabulary in bfloat16 loses the loss's second digit. Flat: with the vocabulary
        # not last, a processor takes its softmax in strides.
        losses = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        return logits, losses.view_as(targets)

    def configure_optimizers(self) -> Any:
        """AdamW with linear warm-up, then cosine or polynomial decay; no weight decay on norms and biases."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # Norms and biases have one dimension; decaying them would pull scales towards 0.
        matrices = [parameter for parameter in trained if parameter.ndim > 1]
        vectors = [parameter for parameter in trained if parameter.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=self.settings.learning_rate,
            # 0.98 in place of 0.999: runs are short, and the second moment must follow.
            betas=(0.9, 0.98),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        if step < self.settings.warmup:
            # From 1, so that the first step already moves.
            return (step + 1) / self.settings.warmup
        done = (step - self.settings.warmup) / max(1, self.settings.steps - self.settings.warmup)
        if self.settings.decay == "cosine":
            left = (1 + math.cos(math.pi * min(1.0, done))) / 2
        else:
            left = (1 - min(1.0, done)) ** self.settings.decay_power
        return self.settings.end_share + (1 - self.settings.end_share) * left


def _attention_kernel(ids: Tensor) -> AbstractContextManager[None]:
    """PyTorch's plain attention for short rows on a processor, its own choice everywhere else."""
    short = ids.device.type == "cpu" and ids.shape[1] <= _SHORT_ROW
    return sdpa_kernel(SDPBackend.MATH) if short else nullcontext()
