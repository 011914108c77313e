"""Several fine-tunings that take their steps together: the model's weights are read once for all of them.

Each has its own demonstrations, rate and masters, and comes to what it comes to alone, up to rounding. Several
processes share them: each makes some of the runs, and at the end all hold all of them.
"""

from collections.abc import Sequence

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_icl.metrics.gathering import gathered
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import Trained
from lightning_icl.probing._sharing import handed_round
from lightning_icl.probing.finetuning import Finetunable, KVFinetuning, check_same_everywhere
from lightning_icl.probing.finetuning_run import Finetuned, FinetuningRun, step_tokens


class GroupFinetuning(KVFinetuning):
    """Fine-tune many runs side by side, in one `Trainer.fit` of a `FinetunedModule` on `group_steps(runs)`.

    A run whose loss is NaN or infinite, or whose demonstrations are all learnt, leaves the group without touching the
    others. A process that has no run left, or never had one, takes the remaining steps with nothing in them: at each
    of them Lightning lets processes wait for each other.

    Args:
        runs: what learns.
        trained: key and value projections, or query projections.

    Raises:
        ProtocolError: the Trainer or the data would break the protocol, or something has broken it.
    """

    def __init__(self, runs: Sequence[FinetuningRun], trained: Trained = "kv") -> None:
        super().__init__(runs[0].learning_rate, trained)
        self._group = tuple(runs)
        self.finetuned: dict[int, Finetuned] = {}
        """By number of run what it has learnt."""
        self.diverged: dict[int, str] = {}
        """By number of run why it has learnt nothing."""

    def runs(self, probe: Finetunable) -> Sequence[FinetuningRun]:
        """All of the group."""
        self.finetuned, self.diverged = {}, {}
        return self._group

    def own(self, trainer: Trainer) -> list[int]:
        """The share of this process: not a block of neighbours, which are alike and leave together."""
        return list(range(trainer.global_rank, len(self._group), trainer.world_size))

    def loss(self, capture: Capture, token_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As for one run; nothing where no run is left."""
        if not self._rows:
            return torch.zeros(0, device=token_ids.device), []
        return super().loss(capture, token_ids)

    def diverge(self, number: int, message: str) -> None:
        """Note that a run's loss is NaN or infinite: the group goes on without it."""
        self.diverged[number] = message

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Tensor, batch_idx: int
    ) -> None:
        """Record the step, and go on with the runs that have another."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        going_on = [
            row
            for row, number in enumerate(self._rows)
            if number not in self.diverged and not self._progress[number].complete
        ]
        if len(going_on) == len(self._rows):
            return
        # Before masters are dropped: what a complete run has learnt is in them.
        self._take_complete()
        self.masters.keep(going_on)
        # In place, since the optimizer holds these lists.
        self._rows[:] = [self._rows[row] for row in going_on]
        self._rates[:] = [self._rates[row] for row in going_on]

    def _take_complete(self) -> None:
        for row, number in enumerate(self._rows):
            progress = self._progress[number]
            if progress.complete and number not in self.diverged:
                self.finetuned[number] = progress.finetuned(self.masters, row)
                # The largest part of a finished run, and no longer needed.
                progress.queries = []

    def leave(self, probe: Finetunable) -> None:
        """Share what was learnt and check it: runs were taken from the masters when they were complete."""
        self.finetuned = handed_round(self.finetuned, probe.model.device)
        self.diverged = dict(sorted(item for of_process in gathered(self.diverged) for item in of_process.items()))
        check_same_everywhere(list(self.finetuned.values()))


class _GroupSteps(Dataset[Tensor]):
    """The steps of a group: at each, the example of every run that has one."""

    def __init__(self, runs: Sequence[FinetuningRun]) -> None:
        self._runs = runs

    def __len__(self) -> int:
        return max(len(run.demonstrations) for run in self._runs)

    def __getitem__(self, step: int) -> Tensor:
        return torch.tensor(step_tokens(self._runs, step))


def group_steps(runs: Sequence[FinetuningRun]) -> DataLoader[Tensor]:
    """Training data of a group, in prompt order."""
    # The data set makes whole batches already.
    return DataLoader(_GroupSteps(runs), batch_size=None, shuffle=False)
