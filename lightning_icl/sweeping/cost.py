"""What a sweep costs: runs, steps and tokens, time by the model's measured rate, and weights held at once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lightning_icl.data.batches import batch_budget
from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import budget_batches, collate
from lightning_icl.models.capture import Capture
from lightning_icl.probing.finetuning_run import FinetuningRun
from lightning_icl.probing.group_memory import packed, run_bytes
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition, Demonstrations
from lightning_icl.sweeping.plan import TaskSweep, Unit

# A training step runs forward, and backward at about twice the price.
STEP_PRICE = 3

Runs = Sequence[tuple[Unit, float]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of some runs, in tokens that pass through the model."""

    runs: int = 0
    steps: int = 0
    """Fine-tuning steps."""
    training_tokens: int = 0
    observed_tokens: int = 0
    """Tokens of prompts and queries under all conditions, held-out ones too."""
    passes: int = 0
    """Walks through the queries; each observes zero-shot once, and in-context once for each seed and shots in it."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @property
    def forward_tokens(self) -> int:
        """All work as tokens of forward passes."""
        return self.observed_tokens + STEP_PRICE * self.training_tokens


def cost_of(task: TaskSweep, groups: Sequence[Runs]) -> Cost:
    """The cost of a task's runs in the passes they are made in."""
    total = Cost()
    for runs in groups:
        units = dict.fromkeys(unit for unit, _ in runs)
        queries = query_tokens(next(iter(task.data.values())))
        prompts = sum(len(task.data[unit].demonstrations.prefix_token_ids) for unit in units)
        total += Cost(
            runs=len(runs),
            steps=sum(len(task.data[unit].demonstrations) for unit, _ in runs),
            training_tokens=sum(step_tokens(task.data[unit].demonstrations) for unit, _ in runs),
            # Zero-shot once, each prompt once, each run's fine-tuned condition, and its held-out queries.
            observed_tokens=prompts + queries * (1 + len(units) + len(runs)) + held_out_tokens(task) * len(runs),
            passes=1,
        )
    return total


def step_tokens(demonstrations: Demonstrations) -> int:
    """Tokens that a whole fine-tuning reads."""
    return sum(len(demonstrations.bos) + len(example) for example in demonstrations.examples)


def query_tokens(data: ICLDataModule) -> int:
    """Tokens of all queries."""
    return sum(map(len, data.queries))


def held_out_tokens(task: TaskSweep) -> int:
    """Tokens of all held-out queries."""
    return sum(map(len, task.held_out))


def finetunings(task: TaskSweep, runs: Runs) -> list[FinetuningRun]:
    """What the runs of a task learn, and how fast."""
    return [FinetuningRun(learning_rate=rate, demonstrations=task.data[unit].demonstrations) for unit, rate in runs]


def grouped(runs: Runs, task: TaskSweep, model: "PreTrainedModel", gigabytes: float) -> list[Runs]:
    """Runs in groups whose fine-tuned weights fit the memory, one pass each; at least one run a group."""
    return list(packed(runs, [run_bytes(model, task.data[unit].demonstrations) for unit, _ in runs], gigabytes))


def forward_rate(model: PreTrainedModel, data: ICLDataModule, repeats: int = 3) -> float:
    """Query tokens a second under the zero-shot condition, the best of a few batches after one to warm up."""
    longest = budget_batches(data.queries, batch_budget(data.batch_tokens, data.queries, model.device))[0]
    batch = collate(longest).to(model.device)
    # Padding is computed but is no token of a query.
    tokens = sum(map(len, longest))
    seconds = []
    with Capture(model) as capture, torch.inference_mode():
        view = View.prepare(capture, Condition.zero_shot(data.demonstrations))
        for _ in range(repeats + 1):
            started = time.perf_counter()
            view.observe(capture, batch)
            seconds.append(time.perf_counter() - started)
    # The first pass warms caches and allocators.
    return tokens / min(seconds[1:])
