"""What controls are built on: a finished main comparison's parts, and a way to fine-tune once more."""

from dataclasses import dataclass, replace
from typing import Protocol

from transformers import PreTrainedModel

from lightning_icl.data.module import ICLDataModule
from lightning_icl.errors import UserError
from lightning_icl.models.kv import Trained
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.finetuning_run import Finetuned
from lightning_icl.probing.layer_causal import Reading
from lightning_icl.records import Condition, Demonstrations, KVOverlay


class Fit(Protocol):
    """Fine-tuning by `Trainer.fit`."""

    def __call__(
        self,
        demonstrations: Demonstrations,
        *,
        trained: Trained = "kv",
        base: KVOverlay | None = None,
        rate: float | None = None,
        layer_causal: Reading | None = None,
    ) -> Finetuned:
        """Fine-tune once more.

        Args:
            demonstrations: to learn from.
            trained: what learns.
            base: weights to start from; None for the model's own.
            rate: learning rate; None for the control's, which is the main one unless it was given another.
            layer_causal: outputs that make each layer's own loss; None for the model's loss.

        Raises:
            NumericalError: the loss diverged.
        """


class Unavailable(UserError):
    """A control that has no meaning for this model or task."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ControlContext:
    """The main comparison of one task, to which controls are put."""

    model: PreTrainedModel
    """The model under study, with its own weights."""
    data: ICLDataModule
    """The task's rows as tokens."""
    finetuned: Finetuned
    """The main fine-tuning."""
    fit: Fit
    """Fine-tunes once more."""
    learning_rate: float
    """Of the control's own fine-tunings."""
    neighbour: Demonstrations | None = None
    """Demonstrations of a neighbouring task; None where there is none."""
    seed: int = 0
    """Seed of everything that is drawn."""

    @property
    def demonstrations(self) -> Demonstrations:
        """Those of the main comparison."""
        return self.data.demonstrations

    @property
    def zsl(self) -> Condition:
        """The main zero-shot condition."""
        return Condition.zero_shot(self.demonstrations)

    @property
    def icl(self) -> Condition:
        """The main in-context condition."""
        return Condition.in_context(self.demonstrations)

    def ft(self, name: str, overlay: KVOverlay) -> Condition:
        """A control's fine-tuned condition."""
        return replace(self.zsl, name=f"ft@{name}", overlay=overlay)

    def with_finetuning(self, name: str, finetuned: Finetuned) -> Contrast:
        """The main contrast with another fine-tuning on the same demonstrations."""
        return Contrast.of(self.demonstrations, finetuned, name=name, ft=f"ft@{name}")

    def with_demonstrations(self, name: str, demonstrations: Demonstrations) -> Contrast:
        """The main contrast with other demonstrations, in the prompt and learnt."""
        return Contrast.of(demonstrations, self.fit(demonstrations), name=name, icl=f"icl@{name}", ft=f"ft@{name}")
