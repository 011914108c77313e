"""The batches that a process looks at: how many tokens they may have, and which of several processes takes which.

`auto` is a rule and no measurement, so that the same command cuts the same batches each time it is run (docs/why.md);
`python -m benchmarks.batch_cost` measures what other budgets would give.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from lightning_icl.data.queries import Query, budget_batches, collate
from lightning_icl.data.settings import BatchTokens
from lightning_icl.records import QueryBatch

ON_PROCESSORS, ON_ACCELERATORS = 1_024, 16_384
"""What `auto` stands for; the number for GPUs has not been measured."""
BATCHES_EACH = 4
"""Batches that each of several processes should have at least, so that a smaller one among them matters little."""

_CPU = torch.device("cpu")


def batch_budget(
    batch_tokens: BatchTokens, queries: Sequence[Query], device: torch.device = _CPU, processes: int = 1
) -> int:
    """Tokens in a batch: the number asked for, or what `auto` stands for.

    Args:
        batch_tokens: a number, which is taken as it is, or `auto`.
        queries: all that are to be put into batches.
        device: where they are looked at.
        processes: among which their batches are divided.

    >>> batch_budget("auto", []), batch_budget(48, [], torch.device("cuda"), 8)
    (1024, 48)
    """
    if batch_tokens != "auto":
        return batch_tokens
    most = ON_PROCESSORS if device.type == "cpu" else ON_ACCELERATORS
    if processes == 1:
        return most

    def batches(budget: int) -> int:
        return len(budget_batches(queries, budget))

    # As many for every process.
    count = processes * max(BATCHES_EACH, math.ceil(batches(most) / processes))
    # The smallest budget that needs no more: at any larger one the last batch would be small, and its process idle.
    return 1 + bisect_left(range(1, most), True, key=lambda budget: batches(budget) <= count)


def share_of(batches: Sequence[list[Query]], process: int, processes: int) -> list[list[Query]]:
    """The batches that one of several processes takes: each goes to whoever has the fewest tokens so far.

    Args:
        batches: as `budget_batches` has cut them.
        process: its number.
        processes: how many there are.

    >>> a, b, c = ([Query(index=0, gold=0, prompt_ids=(7,) * length, answers=((5,),))] for length in (3, 2, 1))
    >>> [sum(map(len, batch)) for batch in share_of([a, b, c], 1, 2)]
    [2, 1]
    """
    shares: list[list[list[Query]]] = [[] for _ in range(processes)]
    tokens = [0] * processes
    for batch in batches:
        # Of equals the first: every process must come to the same division.
        lightest = tokens.index(min(tokens))
        shares[lightest].append(batch)
        # A batch's first query is its longest, so this counts padding, which is computed too.
        tokens[lightest] += len(batch) * len(batch[0])
    return shares[process]


def share_loader(
    queries: Sequence[Query], batch_tokens: BatchTokens, trainer: Trainer | None = None
) -> DataLoader[QueryBatch]:
    """This process's share of the queries, in batches; all of them without a Trainer.

    Args:
        queries: of all processes.
        batch_tokens: tokens in a batch, or `auto`.
        trainer: whose device and processes they are for.
    """
    if trainer is None:
        return batch_loader(budget_batches(queries, batch_budget(batch_tokens, queries)))
    budget = batch_budget(batch_tokens, queries, trainer.strategy.root_device, trainer.world_size)
    batches = budget_batches(queries, budget)
    share = share_of(batches, trainer.global_rank, trainer.world_size)
    if share:
        return batch_loader(share)
    # Lightning skips validation where there is no batch, and the others would wait for ever.
    nothing = collate(batches[-1]).rows(0, 0)
    return DataLoader([nothing], batch_size=None)  # type: ignore[arg-type]


def batch_loader(batches: list[list[Query]]) -> DataLoader[QueryBatch]:
    """Batches of queries, made into tensors when they are asked for."""
    return DataLoader(batches, batch_size=None, collate_fn=collate)  # type: ignore[arg-type]
