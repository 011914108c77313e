"""Choosing the demonstrations of a prompt: in the order of the seeded shuffle, as many as fit the context."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_icl.errors import TaskError
from lightning_icl.records import Demonstrations


@dataclass(frozen=True, kw_only=True)
class Example:
    """A training row as tokens."""

    index: int
    """Row number in the training split."""
    label: int
    """Label number."""
    token_ids: tuple[int, ...]
    """Prompt and answer, without BOS and SEP."""


def choose_demonstrations(
    examples: Sequence[Example],
    *,
    shots: int,
    seed: int,
    bos: tuple[int, ...],
    sep: tuple[int, ...],
    longest_query: int,
    context_length: int | None,
) -> Demonstrations:
    """The first `shots` examples, stopping before the first one that would push the longest query out of the context.

    Args:
        examples: training rows in the order of the shuffle.
        shots: how many are asked for.
        seed: seed of that shuffle, kept for the record.
        bos: tokens that begin the prompt.
        sep: tokens that close each demonstration.
        longest_query: tokens of the longest query together with its longest answer.
        context_length: positions the model has; None where there is no limit.

    Raises:
        TaskError: no shots are asked for, or not even one example fits.
    """
    if shots < 1:
        raise TaskError(f"--shots {shots}: in-context learning needs at least 1 demonstration.")
    # Space for demonstrations: the longest query must still fit behind the last of them.
    space = float("inf") if context_length is None else context_length - longest_query - len(bos)
    chosen: list[Example] = []
    # Stops at the first that does not fit and skips none: a shorter one from further down would be another sample.
    for example in examples[:shots]:
        space -= len(example.token_ids) + len(sep)
        if space < 0:
            break
        chosen.append(example)
    if not chosen:
        raise TaskError(
            f"Not one demonstration fits: the context has {context_length} tokens, the longest query with its answer "
            f"takes {longest_query}, the first demonstration {len(examples[0].token_ids) + len(sep)}. "
            "Use a model with a longer context or a shorter template."
        )
    return Demonstrations(
        indices=tuple(example.index for example in chosen),
        labels=tuple(example.label for example in chosen),
        examples=tuple(example.token_ids for example in chosen),
        bos=bos,
        sep=sep,
        requested=shots,
        seed=seed,
    )
