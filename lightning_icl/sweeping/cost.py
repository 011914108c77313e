"""What a sweep costs: runs, steps and tokens, time by the model's measured rate, and weights held at once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import budget_batches, collate
from lightning_icl.models.architecture import head_counts
from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import slices
from lightning_icl.models.rotary import length_scaling
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition, Demonstrations
from lightning_icl.sweeping.plan import TaskSweep, Unit

# A training step runs forward, and backward at about twice the price.
STEP_PRICE = 3

# Of each token and layer, the widths of the model that are kept for the backward pass: norms, projections, MLP.
_STATES = 24

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


def grouped(runs: Runs, task: TaskSweep, model: "PreTrainedModel", gigabytes: float) -> list[Runs]:
    """Runs in groups whose fine-tuned weights fit the memory, one pass each; at least one run a group."""
    return _packed(runs, [run_bytes(model, task.data[unit].demonstrations) for unit, _ in runs], gigabytes)


def together(runs: Runs, task: TaskSweep, model: "PreTrainedModel", gigabytes: float) -> list[Runs]:
    """Runs in groups that are fine-tuned side by side within the memory, in order; at least one run a group."""
    if length_scaling(model.config) is not None:  # a padded example would turn at the angles of a longer one
        return [[run] for run in runs]
    return _packed(runs, [training_bytes(model, task.data[unit].demonstrations) for unit, _ in runs], gigabytes)


def _packed(runs: Runs, sizes: Sequence[int], gigabytes: float) -> list[Runs]:
    groups: list[list[tuple[Unit, float]]] = []
    used = 0
    for run, size in zip(runs, sizes, strict=True):
        if not groups or used + size > gigabytes * 1e9:
            groups.append([])
            used = 0
        groups[-1].append(run)
        used += size
    return list(groups)


def training_bytes(model: PreTrainedModel, demonstrations: Demonstrations) -> int:
    """Memory of one fine-tuning that takes its steps beside others: masters, gradients, states kept for the backward
    pass, logits, and the query vectors of all steps."""
    config, element = model.config, max(4, torch.finfo(model.dtype).bits // 8)
    weights = sum(part.shape.numel() for part in slices(model))
    longest = len(demonstrations.bos) + max(map(len, demonstrations.examples))
    states = _STATES * int(config.num_hidden_layers) * int(config.hidden_size) + 3 * int(config.vocab_size)
    return run_bytes(model, demonstrations) + element * (weights + longest * states)


def run_bytes(model: PreTrainedModel, demonstrations: Demonstrations) -> int:
    """Memory of one fine-tuning that waits to be observed: masters, the same in the model's type, query vectors."""
    heads, _, width = head_counts(model.config)
    vectors = int(model.config.num_hidden_layers) * len(demonstrations.prefix_token_ids) * heads * width
    element, weights = torch.finfo(model.dtype).bits // 8, 0
    for part in slices(model):
        weights += part.shape.numel() * (max(4, element) + (element if element < 4 else 0))
    return weights + element * vectors


def forward_rate(model: PreTrainedModel, data: ICLDataModule, repeats: int = 3) -> float:
    """Query tokens a second under the zero-shot condition, the best of a few batches after one to warm up."""
    batch = collate(budget_batches(data.queries, data.batch_tokens)[0]).to(model.device)
    tokens = sum(map(len, budget_batches(data.queries, data.batch_tokens)[0]))
    seconds = []
    with Capture(model) as capture, torch.inference_mode():
        view = View.prepare(capture, Condition.zero_shot(data.demonstrations))
        for _ in range(repeats + 1):
            started = time.perf_counter()
            view.observe(capture, batch)
            seconds.append(time.perf_counter() - started)
    return tokens / min(seconds[1:])
