"""The half of a probe that learns: a LightningModule that `Trainer.fit` fine-tunes, one demonstration a step."""

import time
from functools import cached_property
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from transformers import PreTrainedModel

from lightning_icl.errors import ProtocolError
from lightning_icl.models.capture import Capture
from lightning_icl.models.plain import check_plain
from lightning_icl.models.spreading import is_spread
from lightning_icl.probing._checkpoint import from_checkpoint, to_checkpoint
from lightning_icl.probing._protocol import check_strategy, check_trainer
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.finetuning_run import Finetuned
from lightning_icl.records import Demonstrations


class FinetunedModule(LightningModule):
    """A causal language model and the demonstrations that it is fine-tuned on.

    Args:
        model: a Hugging Face causal language model of a supported architecture.
        demonstrations: the examples in the prompt, as an `ICLDataModule` chose them.
        finetuned: a fine-tuning on them that was made before.

    Raises:
        ModelError: the architecture cannot be probed rightly, or the model carries adapters or is quantised.
    """

    def __init__(
        self, model: PreTrainedModel, demonstrations: Demonstrations, finetuned: Finetuned | None = None
    ) -> None:
        super().__init__()
        check_plain(model)
        if is_spread(model):
            # Hidden from Lightning, which would move all of a registered module to one device.
            vars(self)["model"] = model
        else:
            self.model = model
        self.demonstrations = demonstrations
        self.finetuning: KVFinetuning | None = None
        """The callback at work, while fitting."""
        self.finetuned = finetuned
        """What fine-tuning has left behind."""
        self.finetuning_seconds = 0.0
        """Time that it took."""
        self._fitting_since = 0.0

    @cached_property
    def capture(self) -> Capture:
        """The visit to the model, opened for the length of a step."""
        return Capture(self.model)

    def configure_callbacks(self) -> list[Callback]:
        """No callbacks of its own: this is the hook where a Trainer can be checked before any of its callbacks acts.

        Raises:
            ProtocolError: the Trainer would break the protocol, or lose the results.
        """
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_trainer(self.trainer)
        else:
            check_strategy(self.trainer)
        # Checked only: Lightning adds what is returned here.
        return []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD over float32 masters of the key/value parameters."""
        return self._at_work().optimizer(self.model)

    def on_train_start(self) -> None:
        """Start the clock of fine-tuning."""
        self._fitting_since = time.perf_counter()

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Any]:
        """One demonstration: the loss that the fine-tuning brings, in nats per token, and query vectors by layer."""
        self.model.eval()  # no dropout, even if a callback has switched it on
        with self.capture:
            losses, queries = self._at_work().loss(self.capture, batch)
        if len(losses):
            self.log("finetune/loss", losses.detach().mean(), prog_bar=True)
        # Lightning calls backward on "loss": a sum, so that each run's gradient is what it would be alone.
        return {"loss": losses.sum(), "losses": losses.detach(), "queries": queries}

    def backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        """Take gradients of what is trained only, without running hooks that listen for a parameter's gradient."""
        self._at_work().masters.backward(loss)

    def on_train_end(self) -> None:
        """Stop the clock of fine-tuning."""
        self.finetuning_seconds = time.perf_counter() - self._fitting_since

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
        checkpoint["state_dict"] = self.state_dict()  # Lightning loads it next, and must find what it expects

    def _at_work(self) -> KVFinetuning:
        if self.finetuning is None:
            name = type(self).__name__
            raise ProtocolError(f"Trainer.fit on an {name} needs the callback KVFinetuning(learning_rate=...).")
        return self.finetuning
