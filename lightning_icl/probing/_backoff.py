"""What to do when a batch of queries needs more memory than there is: observe it in parts, and join what was seen.

An observation holds the probe tokens alone and is small beside the activations that made it, so metrics still see the
whole batch and their numbers do not depend on where it was cut.
"""

import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from lightning_icl.errors import MemoryShortError
from lightning_icl.records import Observation, QueryBatch

# What PyTorch's allocator on the CPU says, which has no exception of its own.
_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


class Backoff:
    """The token budget that the device has been seen to bear; without limit until it first runs out of memory."""

    def __init__(self) -> None:
        self.tokens: int | None = None
        """Most tokens of a part, padding counted; None for no limit."""

    def observe(self, observe: Callable[[QueryBatch], Observation], batch: QueryBatch) -> Observation:
        """Observe a batch, in halves by queries where memory runs out, and later batches within what fitted.

        Args:
            observe: looks at a batch or a part of it.
            batch: the queries.

        Raises:
            MemoryShortError: a single query does not fit.
        """
        queries, width = batch.token_ids.shape
        # Within a budget that failed before, do not try the whole batch again; a lone query cannot be cut.
        if self.tokens is None or queries * width <= self.tokens or queries == 1:
            try:
                return observe(batch)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            # Outside the handler: its traceback would keep the failed activations alive.
            self._lower(queries, width)
        # Cut by queries and not by tokens: a query's row must stay whole.
        half = (queries + 1) // 2
        # Recursion halves again where a half is still too large.
        return joined([self.observe(observe, batch.rows(0, half)), self.observe(observe, batch.rows(half, queries))])

    def _lower(self, queries: int, width: int) -> None:
        # What the failed attempt cached is of no use in smaller pieces.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if queries == 1:
            raise MemoryShortError(
                f"A single query of {width} tokens does not fit the device's memory. Use --precision bf16, fewer "
                "--shots, or a device with more memory."
            )
        if self.tokens is None:
            warnings.warn(
                f"Memory ran out at a batch of {queries} queries with {width} tokens each; batches are now observed in "
                "parts, which changes no number. A smaller --batch-tokens avoids the failed attempt.",
                stacklevel=2,
            )
        # The size that is about to be tried: later batches start from it.
        self.tokens = (queries + 1) // 2 * width


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MESSAGES)


def joined(parts: list[Observation]) -> Observation:
    """Observations of parts of a batch as one of the whole, in order."""
    values: dict[str, Any] = {}
    for field in fields(Observation):
        of_parts = [getattr(part, field.name) for part in parts]
        # What belongs to the batch as a whole (the type's resolution, for one) is the same in every part.
        values[field.name] = torch.cat(of_parts) if isinstance(of_parts[0], Tensor) else of_parts[0]
    return Observation(**values)
