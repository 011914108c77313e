"""The LightningDataModule of pre-training: the order of blocks, its division among devices, and where to go on."""

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Sampler

from lightning_icl.errors import UserError
from lightning_icl.pretraining._blocks import TrainingBlocks
from lightning_icl.pretraining.packing import HeldOutBlocks, PackedText, TextBlocks
from lightning_icl.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_WORKERS = 4


class Share(Sampler[int]):
    """One process's share of the numbers `done, …, total − 1`; its length counts from 0, as a resumed Trainer does.

    Args:
        total: blocks of the whole training.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, total: int, rank: int, world: int) -> None:
        self.done = 0
        self.total, self.rank, self.world = total, rank, world

    def __len__(self) -> int:
        # A resumed Trainer counts from 0 and skips what was done.
        return self.total // self.world

    def __iter__(self) -> Iterator[int]:
        # Every n-th block: each process gets the same share of text and documents.
        return iter(range(self.done + self.rank, self.total, self.world))


class ResumableLoader(DataLoader[Any]):
    """A loader whose place is kept in the Trainer's checkpoint: the blocks behind the last whole step.

    Args:
        dataset: all blocks, in order.
        share: which of them this process reads.
        batch_size: blocks of this process at a time.
        blocks_done: tells how many blocks all processes have trained on.
        workers: processes that prepare batches ahead, the very same in the same order; forked, so that they have text
            and tokenizer at once.
    """

    def __init__(
        self, dataset: TrainingBlocks, share: Share, batch_size: int, blocks_done: Callable[[], int], workers: int = 0
    ) -> None:
        context = "fork" if workers else None
        super().__init__(
            dataset, batch_size=batch_size, sampler=share, num_workers=workers, multiprocessing_context=context
        )
        self._share, self._blocks_done = share, blocks_done

    def state_dict(self) -> dict[str, int]:
        """Where training stands."""
        return {"blocks": self._blocks_done()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there."""
        # `done` counts blocks of all processes, so a resumed run may have another number of them.
        self._share.done = state_dict["blocks"]


class PretrainingData(LightningDataModule):
    """Blocks for training, in an order that depends on nothing but the settings, and held-out blocks for validation.

    Args:
        settings: of the training.
        tokenizer: of its documents.
        text: what to train on besides generated documents.
        validation: held-out text.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        tokenizer: "PreTrainedTokenizerBase",
        text: PackedText | None,
        validation: PackedText | None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.blocks = TrainingBlocks(settings, tokenizer, None if text is None else TextBlocks(text, settings.seed))
        self.validation = None if validation is None else HeldOutBlocks(validation)

    def train_dataloader(self) -> DataLoader[Any]:
        """This process's part of every step.

        Raises:
            UserError: a step cannot be divided among the devices that there are.
        """
        trainer, settings = self.trainer, self.settings
        assert trainer is not None
        world = trainer.world_size
        parts = world * settings.accumulate
        if settings.batch % parts:
            raise UserError(
                f"batch = {settings.batch}: it must be a multiple of the {world} devices times accumulate "
                f"({settings.accumulate})."
            )
        share = Share(total=len(self.blocks), rank=trainer.global_rank, world=world)
        # Blocks and not steps: a resumed run may divide a step into other parts.
        workers = _workers(trainer)
        if workers:
            # A forked tokenizer would warn that it no longer uses several threads.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return ResumableLoader(
            self.blocks, share, settings.batch // parts, lambda: trainer.global_step * settings.batch, workers
        )

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """This process's share of the held-out blocks."""
        if self.validation is None:
            return []
        assert self.trainer is not None
        numbers = range(self.trainer.global_rank, len(self.validation), self.trainer.world_size)
        return DataLoader(self.validation, batch_size=self.settings.batch, sampler=numbers)


def _workers(trainer: Trainer) -> int:
    """How many processes prepare batches ahead: some where a GPU would wait for documents, which are made by rule."""
    # Elsewhere a process cannot be forked, or computes with the cores that these would take.
    if sys.platform != "linux" or trainer.strategy.root_device.type != "cuda":
        return 0
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)) // (2 * trainer.num_devices))
