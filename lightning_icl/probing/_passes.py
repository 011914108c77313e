"""A batch of queries under several conditions: observed once, read by each, and forgotten when it has served."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from lightning_icl.errors import NumericalError
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
    # One buffer for all overlays: only one of them is active at a time.
    ready: dict[int, LaidOver] = {}
    scratch: dict[str, Tensor] = {}
    views: dict[tuple[Any, ...], View] = {}
    named: dict[str, View] = {}
    for item in conditions:
        # By identity: conditions of one fine-tuning share its tensors, and comparing tensors is costly.
        if item.overlay is not None and id(item.overlay) not in ready:
            ready[id(item.overlay)] = LaidOver(capture.model, item.overlay, scratch)
        if item.inputs not in views:
            views[item.inputs] = View.prepare(capture, item, ready.get(id(item.overlay)))
        # Same inputs, other reading of the answers: no second pass over the prefix.
        named[item.name] = views[item.inputs].read_as(item, capture)
    return named


class Pass:
    """One batch under conditions, each observed when it is first asked for; those with the same inputs once.

    Args:
        capture: an open visit to the model.
        views: of the conditions, by name.
        batch: the queries.
        backoff: the token budget that the device bears.
        dropped: conditions left out so far, by name with the reason, which fine-tuned ones that yield NaN join; None
            where NaN ends the pass.
    """

    def __init__(
        self,
        capture: Capture,
        views: Mapping[str, View],
        batch: QueryBatch,
        backoff: Backoff,
        dropped: dict[str, str] | None = None,
    ) -> None:
        self.batch = batch
        self.scores: dict[str, Tensor] = {}
        """Answer scores (batch, answer) of every condition observed, by name."""
        self._capture, self._views, self._backoff, self._dropped = capture, views, backoff, dropped
        self._seen: dict[tuple[Any, ...], Observation] = {}

    def observe(self, name: str) -> None:
        """Observe a condition, unless it or one with the same inputs has been, or it is dropped.

        Raises:
            NumericalError: the model produced NaN or infinite numbers, and the condition is not one to drop.
        """
        if name in self.scores or name in (self._dropped or ()):
            return
        view = self._views[name]
        if view.condition.inputs not in self._seen:
            try:
                observation = self._backoff.observe(partial(view.observe, self._capture), self.batch)
            except NumericalError as error:
                # Without an overlay it is the model itself that fails, and nothing is left to compare with.
                if self._dropped is None or view.condition.overlay is None:
                    raise
                self._dropped[name] = str(error)
                return
            self._seen[view.condition.inputs] = observation
        self.scores[name] = self.read(name).answer_scores

    def read(self, name: str) -> Observation:
        """What a condition that was observed makes of what was seen."""
        view = self._views[name]
        return view.read(self._seen[view.condition.inputs])

    def forget(self, name: str) -> None:
        """Let go of what a condition saw, scores apart, and of what all others with its inputs did."""
        # Conditions with the same inputs share one observation, so one `pop` forgets them all.
        self._seen.pop(self._views[name].condition.inputs, None)
