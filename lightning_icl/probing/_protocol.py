"""What a Trainer must not do: fine-tuning is one epoch, one plain SGD step for each demonstration, in prompt order.

Settings are checked before the first step and again at every step, since callbacks change them on the way; what cannot
be known from settings, such as who wrote into the weights, is checked afterwards.
"""

from collections.abc import Mapping

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_icl.errors import ProtocolError

# Callbacks that alter steps or weights. `isinstance` below catches their subclasses too.
_ALTERING = {
    StochasticWeightAveraging: "averages weights",
    WeightAveraging: "averages weights",
    ModelPruning: "changes weights",
    BaseFinetuning: "decides what is trained",
    BatchSizeFinder: "takes steps of its own",
    LearningRateFinder: "takes steps of its own",
}


def check_trainer(trainer: Trainer) -> None:
    """Refuse a Trainer whose settings or callbacks would change what fine-tuning means.

    Raises:
        ProtocolError: with the setting, its value, and the value it must have.
    """
    check_settings(trainer)
    # Ahead of callbacks: under a wrong strategy none of the rest can be set right.
    check_strategy(trainer)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kind, effect in _ALTERING.items():
            if isinstance(callback, kind):
                raise ProtocolError(
                    f"The callback {type(callback).__name__} {effect}, which breaks the fine-tuning protocol (one "
                    "epoch, one plain SGD step for each demonstration). Leave it out of this Trainer."
                )


def check_settings(trainer: Trainer) -> None:
    """Refuse settings that would change the steps.

    Raises:
        ProtocolError: with the setting, its value, and the value it must have.
    """
    settings = (
        ("max_epochs", trainer.max_epochs, 1),
        ("max_steps", trainer.max_steps, -1),
        ("accumulate_grad_batches", trainer.accumulate_grad_batches, 1),
        # Lightning has both None and 0 for "no clipping".
        ("gradient_clip_val", trainer.gradient_clip_val or None, None),
        ("limit_train_batches", trainer.limit_train_batches, 1.0),
        ("overfit_batches", getattr(trainer, "overfit_batches", 0.0), 0.0),
        ("fast_dev_run", bool(getattr(trainer, "fast_dev_run", False)), False),
    )
    for name, value, needed in settings:
        if value != needed:
            raise ProtocolError(
                f"Trainer({name}={value}) breaks the fine-tuning protocol (one epoch, one plain SGD step for each "
                f"demonstration). Set {name}={needed}, and leave out callbacks that change it."
            )
    # In every spelling: "16", "16-true", "16-mixed".
    if str(trainer.precision).startswith("16"):
        raise ProtocolError(
            f"Trainer(precision={trainer.precision!r}): gradients underflow in float16. Use 32-true, bf16-true or "
            "bf16-mixed."
        )


def check_strategy(trainer: Trainer) -> None:
    """Refuse a strategy under which no process holds the whole model, or whose processes take the results with them.

    Raises:
        ProtocolError: with the strategy, and those that serve.
    """
    strategy = trainer.strategy
    # Spawned processes are children of this one: their modules die with them.
    spawned = isinstance(strategy.launcher, _MultiProcessingLauncher)
    if spawned or not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        reason = (
            "what its processes learn and measure is lost when they end"
            if spawned
            else "fine-tuning and probing need the whole model in every process"
        )
        raise ProtocolError(
            f"Trainer(strategy=…) is a {type(strategy).__name__}{' that spawns processes' if spawned else ''}: "
            f"{reason}. Use 'auto' or 'ddp', in a script, or start the processes with torchrun."
        )


def fit_from_the_start(trainer: Trainer) -> None:
    """Let a Trainer that has spent its one epoch on another fit begin again."""
    # Lightning counts epochs over all fits of a Trainer, and would take this fit for finished.
    if trainer.max_epochs is not None and trainer.current_epoch >= trainer.max_epochs:
        trainer.fit_loop.epoch_progress.reset()


def keep_gradients_apart(trainer: Trainer) -> None:
    """No step is divided among processes: what wraps the module must wait for no gradients, since none are sent."""
    wrapped = trainer.strategy.model
    # Otherwise DDP waits at the end of every step for gradients that it never gets.
    if isinstance(wrapped, DistributedDataParallel):
        wrapped.require_backward_grad_sync = False


def checksums(model: nn.Module) -> dict[str, int]:
    """By name of parameter a sum over its bits, which any change of the weights changes."""
    return {name: _checksum(parameter.detach().flatten()) for name, parameter in model.named_parameters()}


def _checksum(numbers: torch.Tensor) -> int:
    # Sums of integers are exact in any order, but for what wraps at 2^64. Eight bytes a word need no conversion, which
    # would take twenty times as long as reading the weights does.
    size = numbers.element_size()
    if all(count * size % 8 == 0 for count in (numbers.numel(), numbers.storage_offset())):
        return int(numbers.view(torch.int64).sum())
    return int(numbers.view({2: torch.int16, 4: torch.int32}[size]).sum())


def check_untouched(before: Mapping[str, int], model: nn.Module) -> None:
    """Refuse a fine-tuning during which something wrote into the model.

    Args:
        before: checksums of the model before the first step.
        model: the model after the last.

    Raises:
        ProtocolError: with the first parameter that changed.
    """
    after = checksums(model)
    changed = [name for name in before if after.get(name) != before[name]]
    if changed:
        raise ProtocolError(
            f"{len(changed)} parameters of the model changed while it was fine-tuned, the first {changed[0]!r}. "
            "Fine-tuning never writes into the model: leave out of the Trainer the callback or plugin that does."
        )
