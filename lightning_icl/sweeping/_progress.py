"""A bar for the whole sweep, in tokens that pass through the model, with the time left."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_icl.comparison.progress import Lines
from lightning_icl.sweeping.cost import Cost

Spend = Callable[[float], None]
"""Takes tokens as they are spent, and moves the bar."""


class Advance(L.Callback):
    """Moves the bar by the tokens of a pass, in equal shares for its batches.

    Args:
        tokens: of the whole pass, under all its conditions.
        spend: moves the bar.
    """

    def __init__(self, tokens: int, spend: Spend) -> None:
        self._tokens, self._spend = tokens, spend

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """One batch is done."""
        # Batches are about equal in tokens, since they are filled to a budget.
        self._spend(self._tokens / sum(trainer.num_val_batches))


def _lines(total: float) -> Spend:
    lines, spent = Lines(), 0.0

    def spend(tokens: float) -> None:
        nonlocal spent
        spent += tokens
        lines.tell(f"sweep: {min(1.0, spent / total):.0%} of the tokens of this model's runs", spent, total)

    return spend


@contextmanager
def sweep_bar(cost: Cost) -> Iterator[Spend]:
    """The bar of a terminal, or lines elsewhere; tell it of tokens as they are spent."""
    if not sys.stdout.isatty():
        yield _lines(cost.forward_tokens)
        return
    columns = (TextColumn("sweep"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # A plan without runs would be a bar of length 0.
    with Progress(*columns, disable=cost.runs == 0) as bar:
        task = bar.add_task("sweep", total=cost.forward_tokens)
        yield lambda tokens: bar.advance(task, tokens)
