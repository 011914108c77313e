"""A batch of queries under several conditions: looked at once, read by each, and forgotten when it has served."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from lightning_icl.models.capture import Capture
from lightning_icl.models.kv import LaidOver
from lightning_icl.probing._backoff import Backoff
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition, Observation, QueryBatch


def prepared(capture: Capture, conditions: Iterable[Condition]) -> dict[str, View]:
    """Views of conditions by name: overlays are made ready once, and equal inputs share one prefix.

    Args:
        capture: an open visit to the model.
        conditions: each under a name of its own.
    """
    ready: dict[int, LaidOver] = {}
    scratch: dict[str, Tensor] = {}
    views: dict[tuple[Any, ...], View] = {}
    named: dict[str, View] = {}
    for item in conditions:
        if item.overlay is not None and id(item.overlay) not in ready:
            ready[id(item.overlay)] = LaidOver(capture.model, item.overlay, scratch)
        if item.inputs not in views:
            views[item.inputs] = View.prepare(capture, item, ready.get(id(item.overlay)))
        named[item.name] = views[item.inputs].read_as(item, capture)
    return named


class Pass:
    """One batch under conditions, each observed when it is first looked at; those with the same inputs once.

    Args:
        capture: an open visit to the model.
        views: of the conditions, by name.
        batch: the queries.
        backoff: the token budget that the device bears.
    """

    def __init__(self, capture: Capture, views: Mapping[str, View], batch: QueryBatch, backoff: Backoff) -> None:
        self.batch = batch
        self.scores: dict[str, Tensor] = {}
        """Answer scores (batch, answer) of every condition looked at, by name."""
        self._capture, self._views, self._backoff = capture, views, backoff
        self._seen: dict[tuple[Any, ...], Observation] = {}

    def look(self, name: str) -> None:
        """Observe a condition, unless it or one with the same inputs has been.

        Raises:
            NumericalError: the model produced NaN or infinite numbers.
        """
        view = self._views[name]
        if view.condition.inputs not in self._seen:
            observation = self._backoff.observe(partial(view.observe, self._capture), self.batch)
            self._seen[view.condition.inputs] = observation
        self.scores[name] = self.read(name).answer_scores

    def read(self, name: str) -> Observation:
        """What a condition that was looked at makes of what was seen."""
        view = self._views[name]
        return view.read(self._seen[view.condition.inputs])

    def forget(self, name: str) -> None:
        """Let go of what a condition saw, scores apart, and of what all others with its inputs did."""
        self._seen.pop(self._views[name].condition.inputs, None)
