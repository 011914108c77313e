"""One fine-tuning apart from what carries it out: on what, how far it has come, and what it leaves behind."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_icl.errors import ProtocolError
from lightning_icl.models.masters import Masters
from lightning_icl.records import Demonstrations, KVOverlay


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What restricted fine-tuning leaves behind."""

    overlay: KVOverlay
    """The learnt key/value parameters."""
    learning_rate: float
    """Rate of the SGD steps."""
    losses: tuple[float, ...]
    """Loss of each step, in nats per token."""
    update_norms: tuple[float, ...]
    """Per layer the Frobenius norm of the change of what was trained."""
    training_queries: Tensor | None
    """Query vectors (layer, prefix, query_width) of the training tokens at their steps; 0 at BOS and SEP."""


@dataclass(frozen=True, kw_only=True)
class FinetuningRun:
    """One fine-tuning: on what, and how fast."""

    learning_rate: float
    """Rate of the SGD steps."""
    demonstrations: Demonstrations
    """Learnt from once each, in order."""

    def __post_init__(self) -> None:
        """Check the rate.

        Raises:
            ProtocolError: it is not a positive number.
        """
        check_rate(self.learning_rate)

    def tokens(self, step: int) -> list[int]:
        """`BOS ex_i` of a step."""
        return [*self.demonstrations.bos, *self.demonstrations.examples[step]]

    def learnt(self, step: int) -> slice:
        """The example's tokens and the last one before them, from which the first is predicted."""
        return slice(self.demonstrations.first_learnt - 1, len(self.tokens(step)))


@dataclass(kw_only=True)
class FinetuningProgress:
    """How far a run has come."""

    run: FinetuningRun
    losses: list[float] = field(default_factory=list)
    queries: list[list[Tensor]] = field(default_factory=list)
    """Of each step, by layer, the query vectors of the example's tokens."""

    @property
    def complete(self) -> bool:
        """Whether every demonstration has been learnt from."""
        return len(self.losses) == len(self.run.demonstrations)

    def record(self, loss: float, queries: list[Tensor]) -> None:
        """Keep what a step showed: its loss, and the query vectors (token, query_width) of each layer."""
        step = len(self.losses)
        # BOS is no demonstration token: Kendall ranks the tokens of examples only.
        tokens = slice(len(self.run.demonstrations.bos), len(self.run.tokens(step)))
        self.losses.append(loss)
        self.queries.append([of_layer[tokens] for of_layer in queries])

    def finetuned(self, masters: Masters, row: int) -> Finetuned:
        """What was learnt up to the last step, without query vectors before the end."""
        return Finetuned(
            overlay=masters.overlay(row),
            learning_rate=self.run.learning_rate,
            losses=tuple(self.losses),
            update_norms=tuple(masters.update_norms(row)),
            # Incomplete runs are saved by checkpoints; their query vectors would not fill the prompt.
            training_queries=training_queries(self.queries, self.run.demonstrations) if self.complete else None,
        )


def step_tokens(runs: Sequence[FinetuningRun], step: int) -> list[list[int]]:
    """The batch of a step: `BOS ex_i` of every run that has it, in order, padded at the end with token 0."""
    rows = [run.tokens(step) for run in runs if step < len(run.demonstrations)]
    longest = max(map(len, rows), default=0)
    return [row + [0] * (longest - len(row)) for row in rows]


def training_queries(steps: list[list[Tensor]], demonstrations: Demonstrations) -> Tensor:
    """Each step's query vectors, put where the prompt has the same tokens: (layer, prefix, query_width).

    Raises:
        RuntimeError: fine-tuning saw another number of tokens than the prompt holds.
    """
    # Demonstration tokens have a number from 0; BOS and separators have -1.
    places = [place for place, number in enumerate(demonstrations.token_example) if number >= 0]
    recorded = sum(len(step[0]) for step in steps)
    if len(places) != recorded:
        raise RuntimeError(f"{recorded} training tokens were recorded; the prompt has {len(places)}.")
    first = steps[0]
    # 0 where nothing was recorded; those places take no part in any figure.
    placed = first[0].new_zeros(len(first), len(demonstrations.token_example), first[0].shape[-1])
    index = torch.tensor(places, device=placed.device)
    for layer, tokens in enumerate(zip(*steps, strict=True)):
        placed[layer].index_copy_(0, index, torch.cat(tokens))
    return placed


def check_rate(rate: float) -> None:
    """A learning rate is a positive number.

    Raises:
        ProtocolError: it is not.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise ProtocolError(f"--lr {rate}: the learning rate must be a positive number.")
