"""Many fine-tunings together against the same ones one after another, side by side in one process.

    python -m benchmarks.group_cost           # GPT-2 124M shape, float32: 8 and 36 rates, 32 examples of 30 tokens
    python -m benchmarks.group_cost --size tiny --runs 2 --rounds 1

Random weights; every round takes both ways in turn. Also said: the largest difference between the two ways' weights.
"""

import argparse
import logging
from collections.abc import Sequence

import lightning as L
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.rounds import Ratio, measure
from benchmarks.workload import WORKLOADS
from lightning_icl.comparison.trainer import quiet
from lightning_icl.probing.finetuning_run import Finetuned, FinetuningRun
from lightning_icl.probing.group import GroupFinetuning, group_steps
from lightning_icl.probing.group_memory import group_bytes
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.records import Demonstrations
from lightning_icl.sweeping.settings import PAPER_RATES


def fine_tuned(model: PreTrainedModel, runs: Sequence[FinetuningRun]) -> list[Finetuned]:
    """All runs, in one group."""
    group = GroupFinetuning(runs)
    trainer = L.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[group],
    )
    trainer.fit(FinetunedModule(model, runs[0].demonstrations), group_steps(runs))
    return list(group.finetuned.values())


def largest_difference(together: Sequence[Finetuned], apart: Sequence[Finetuned]) -> float:
    """Over all weights of all runs."""
    return max(
        float((tensor - other.overlay.tensors[name]).abs().max())
        for one, other in zip(together, apart, strict=True)
        for name, tensor in one.overlay.tensors.items()
    )


def measured(model: PreTrainedModel, demonstrations: Demonstrations, count: int, rounds: int) -> tuple[Ratio, float]:
    """How many times as fast the group is, and how far its weights are from those of single runs."""
    runs = [FinetuningRun(learning_rate=rate, demonstrations=demonstrations) for rate in PAPER_RATES[:count]]
    results: dict[str, list[Finetuned]] = {}

    def apart() -> None:
        results["apart"] = [fine_tuned(model, [run])[0] for run in runs]

    def together() -> None:
        results["together"] = fine_tuned(model, runs)

    seconds = measure({"apart": apart, "together": together}, rounds)
    target = "≥ 3" if count >= 36 else "≥ 2.4"
    ratio = Ratio.of(f"{count} apart / together", seconds["apart"], seconds["together"], target=target)
    return ratio, largest_difference(results["together"], results["apart"])


def main(words: Sequence[str] | None = None) -> None:
    """Print a line for each number of runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*WORKLOADS], default="gpt2")
    parser.add_argument("--runs", type=int, nargs="+", default=[8, 36])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(words)
    quiet()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    workload = WORKLOADS[arguments.size].but(shots=32, prefix=32 * 30)
    model, demonstrations = AutoModelForCausalLM.from_config(workload.config()).eval(), workload.demonstrations()
    for count in arguments.runs:
        ratio, difference = measured(model, demonstrations, count, arguments.rounds)
        runs = [FinetuningRun(learning_rate=rate, demonstrations=demonstrations) for rate in PAPER_RATES[:count]]
        memory = group_bytes(model, runs) / 1e9
        print(
            f"{ratio.name}: {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}), to be {ratio.target}; weights "
            f"differ by {difference:.1e} at most; about {memory:.1f} GB beside the model"
        )


if __name__ == "__main__":
    main()
