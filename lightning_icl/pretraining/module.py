"""Causal language modelling from scratch: the LightningModule and its documents."""

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from lightning_icl.pretraining.documents import document
from lightning_icl.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


# Short documents are numbered from here on, so that none is met again as a long one.
_SHORT = 1 << 30


class Documents(Dataset[tuple[Tensor, Tensor]]):
    """Training documents as token ids and loss weights, each filled to a whole block; number i is always the same.

    In the first steps a block holds several short documents, to be taken apart by the training step: looking back is
    learnt several times sooner where there is little to look back at.
    """

    def __init__(self, settings: PretrainSettings, tokenizer: "PreTrainedTokenizerBase", steps_done: int = 0) -> None:
        self._settings, self._tokenizer = settings, tokenizer
        self._first = steps_done * settings.batch

    def __len__(self) -> int:
        return self._settings.steps * self._settings.batch - self._first

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        settings, number = self._settings, number + self._first
        if number // settings.batch >= settings.short_steps:
            return self._filled(number, settings.block, repeat_share=0.0)
        pieces = settings.block // settings.short_block
        short = [
            self._filled(_SHORT + number * pieces + piece, settings.short_block, settings.repeat_share)
            for piece in range(pieces)
        ]
        ids, weights = zip(*short, strict=True)
        return torch.cat(ids), torch.cat(weights)

    def _filled(self, number: int, length: int, repeat_share: float) -> tuple[Tensor, Tensor]:
        """A document cut at a length, and the loss weight of each token."""
        settings, ids = self._settings, [self._tokenizer.bos_token_id]
        weights = [1.0]
        for texts in document(settings.seed, number, settings.natural_share, repeat_share):
            prompt, answer = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
            ids += [*prompt, *answer, self._tokenizer.eos_token_id]
            weights += chain([1.0] * len(prompt), [settings.answer_weight] * len(answer), [1.0])
            if len(ids) >= length:
                break
        return torch.tensor(ids[:length]), torch.tensor(weights[:length])


class CausalPretraining(LightningModule):
    """A causal language model in training; answer tokens weigh more in the loss than the rest."""

    def __init__(self, model: "LlamaForCausalLM", settings: PretrainSettings) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Weighted mean negative log-likelihood, in nats per token."""
        length = self.settings.short_block if self.global_step < self.settings.short_steps else self.settings.block
        ids, weights = (rows.view(-1, length) for rows in batch)
        logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1]
        losses = cross_entropy(logits.transpose(1, 2).float(), ids[:, 1:], reduction="none")
        weights = weights[:, 1:]
        loss = (losses * weights).sum() / weights.sum()
        answers = weights > 1
        self.log("loss", loss.detach(), prog_bar=True)
        self.log("answer_loss", losses.detach()[answers].mean(), prog_bar=True)
        self.log("answer_accuracy", (logits.argmax(-1) == ids[:, 1:])[answers].float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW with linear warm-up and cosine decay to a tenth of the peak; no decay on norms."""
        matrices = [parameter for parameter in self.model.parameters() if parameter.ndim > 1]
        vectors = [parameter for parameter in self.model.parameters() if parameter.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=self.settings.learning_rate,
            betas=(0.9, 0.98),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        if step < self.settings.warmup:
            return (step + 1) / self.settings.warmup
        done = (step - self.settings.warmup) / max(1, self.settings.steps - self.settings.warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))
