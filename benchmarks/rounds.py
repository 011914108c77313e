"""Measuring side by side: every candidate once in each round, in turn, so that drift of the machine meets all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch

Seconds = dict[str, list[float]]


def measure(candidates: Mapping[str, Callable[[], object]], rounds: int, warm_up: bool = True) -> Seconds:
    """Seconds of each candidate in each round; a round more goes before them to warm up."""
    taken: Seconds = {name: [] for name in candidates}
    for number in range(rounds + warm_up):
        for name, run in candidates.items():
            seconds = timed(run)
            if number >= warm_up:
                taken[name].append(seconds)
    return taken


def timed(run: Callable[[], object]) -> float:
    """Seconds that something takes, on a GPU until it has finished."""
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A figure of the table: the ratio of two candidates in each round."""

    name: str
    median: float
    low: float
    high: float
    target: str = ""
    """What it should be, if that is set."""

    @classmethod
    def of(cls, name: str, upper: list[float], lower: list[float], *, factor: float = 1.0, target: str = "") -> "Ratio":
        """`factor * upper / lower` round by round."""
        values = [factor * one / other for one, other in zip(upper, lower, strict=True)]
        return cls(name=name, median=statistics.median(values), low=min(values), high=max(values), target=target)

    def as_json(self) -> dict[str, object]:
        return asdict(self)
