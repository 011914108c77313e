"""A program whose two processes share groups of fine-tunings and save what each of them holds: see test_sharing."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from exactness import make_trainer
from single_runs import PRECISIONS
from tiny_models import tiny_model
from tiny_task import tiny_data
from torch import Tensor

from lightning_icl.probing.finetuning_run import FinetuningRun
from lightning_icl.probing.group import GroupFinetuning, group_steps
from lightning_icl.probing.module import FinetunedModule

# Every second run is the second process's: of "one" it has none, of "half diverge" it loses all.
RATES = {
    "many": (0.05, 0.01, 0.2, 0.1, 0.02),
    "one": (0.05,),
    "half diverge": (0.05, 1e30, 0.01, 1e30),
    "all diverge": (1e30, 1e35),
}
# By model its type and groups.
MODELS = {"gpt2": (torch.float32, tuple(RATES)), "llama": (torch.bfloat16, ("many",))}


class Work(L.Callback):
    """Counts the steps of runs that this process takes."""

    done = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        self.done += len(outputs["losses"])


def bits(tensor: Tensor) -> str:
    return hashlib.sha256(bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())).hexdigest()


def held(group: GroupFinetuning) -> Mapping[str, Any]:
    """All that a group comes to."""
    finetuned = {
        str(number): [item.overlay.hash, bits(item.training_queries), item.losses, item.update_norms]
        for number, item in group.finetuned.items()
        if item.training_queries is not None
    }
    diverged = {str(number): reason for number, reason in group.diverged.items()}
    return {"finetuned": finetuned, "diverged": diverged}


def fit(folder: Path, processes: int) -> None:
    """Fit every group, and write down what this process holds, and how many steps of runs it has taken."""
    own = folder / f"rows {os.environ.get('LOCAL_RANK', '0')}"  # so that none reads what another is writing
    own.mkdir()
    long, short = (tiny_data(own, seed=seed, shots=shots).demonstrations for seed, shots in ((1, 5), (2, 3)))
    for variant, (dtype, names) in MODELS.items():
        model = tiny_model(variant).to(dtype)
        for name in names:
            runs = [FinetuningRun(learning_rate=rate, demonstrations=(long, short)[rate > 0.1]) for rate in RATES[name]]
            group, work = GroupFinetuning(runs), Work()
            settings = {"devices": processes, "use_distributed_sampler": False}
            trainer = make_trainer(group, work, precision=PRECISIONS[dtype], **settings)
            trainer.fit(FinetunedModule(model, long), group_steps(runs))
            content = json.dumps({"held": held(group), "work": work.done})
            (folder / f"{variant}, {name}, {trainer.global_rank}.json").write_text(content)


if __name__ == "__main__":
    torch.set_num_threads(1)
    fit(Path(sys.argv[1]), 2)
