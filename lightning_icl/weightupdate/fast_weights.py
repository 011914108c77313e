"""The update as an object: what demonstrations leave in every head, saved, loaded, and answering without them.

A query then costs the same whatever the number of demonstrations.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from lightning_icl.attention.ladder import HeadUpdate
from lightning_icl.errors import ModelError, OutputError
from lightning_icl.models.architecture import head_counts
from lightning_icl.models.capture import Capture
from lightning_icl.models.recording import Prefix
from lightning_icl.models.replacement import Updated
from lightning_icl.models.scope import Scope
from lightning_icl.records import Demonstrations, QueryBatch
from lightning_icl.saving.tensors import save_tensors
from lightning_icl.weightupdate.ladder_observation import LadderObservation, observe_condition
from lightning_icl.weightupdate.settings import FastRung
from lightning_icl.weightupdate.survey import Survey

_FORMAT = "lightning-icl fast weights 1"


@dataclass(frozen=True, kw_only=True)
class FastWeights:
    """Demonstrations as an update of every head of one model."""

    rung: FastRung
    """How attention to them is approximated."""
    scope: Scope
    """Whose attention they stand in: `query` or `alone`; with `probe` other tokens would need the demonstrations."""
    bos: tuple[int, ...]
    """Token ids that begin every input, which stay tokens."""
    prefix_length: int
    """How many tokens BOS and demonstrations were: queries keep the positions that they have behind them."""
    updates: Mapping[int, HeadUpdate]
    """By layer."""
    emas: tuple[Tensor, ...] = ()
    """With momentum attention, per layer the values' moving average at the end of the demonstrations (1, K, D)."""

    def observe(self, capture: Capture, batch: QueryBatch) -> LadderObservation:
        """Answer a batch of queries without the demonstrations.

        Args:
            capture: an open visit to the model that they were made for.
            batch: the queries, probed at their prompts' last token.
        """
        # A model may be spread over several devices, and an update must be where its layer is.
        devices = [next(module.parameters()).device for module in capture.attentions]
        updates = {layer: _on(update, devices[layer]) for layer, update in self.updates.items()}
        updated = Updated(updates, len(self.bos), self.scope)
        # Queries keep the positions that they had behind the demonstrations.
        offset = self.prefix_length - len(self.bos)
        return observe_condition(
            capture, batch, self._beginning(capture), name=self.rung, offset=offset, replacement=updated
        )

    def _beginning(self, capture: Capture) -> Prefix:
        """BOS as a prefix, of no tokens where there is none, with what the demonstrations leave in a moving average."""
        model, prefix = capture.model, capture.prefix(self.bos)
        if prefix is None:
            _, kv_heads, width = head_counts(model.config)
            # A prefix of no tokens still has the layers and heads that attention expects.
            empty = torch.empty(1, kv_heads, 0, width, dtype=model.dtype, device=model.device)
            prefix = Prefix(length=0, keys=(empty,) * len(self.updates), values=(empty,) * len(self.updates))
        return replace(prefix, emas=tuple(ema.to(model.device) for ema in self.emas))

    def save(self, path: str | Path) -> None:
        """Write them as safetensors.

        Raises:
            OSError: they cannot be written.
        """
        # Tensors by layer and name; what a rung lacks is not saved.
        tensors = {
            f"{layer}.{name}": value
            for layer, update in self.updates.items()
            for name, value in vars(update).items()
            if value is not None
        }
        tensors |= {f"{layer}.ema": ema for layer, ema in enumerate(self.emas)}
        about = {"rung": self.rung, "scope": self.scope, "bos": self.bos, "prefix_length": self.prefix_length}
        save_tensors(Path(path), tensors, {"format": _FORMAT, "about": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> "FastWeights":
        """Read what `save` wrote.

        Raises:
            OutputError: the file cannot be read, or holds something else.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata.get("format") != _FORMAT:
                raise OutputError(f"{str(path)!r} holds no fast weights of this version of lightning-icl.")
            about = json.loads(metadata["about"])
            # Read from the names, so that a file says itself which layers it has.
            layers = sorted({int(name.split(".")[0]) for name in tensors})
            return cls(
                rung=about["rung"],
                scope=about["scope"],
                bos=tuple(about["bos"]),
                prefix_length=about["prefix_length"],
                updates={layer: _read(layer, tensors) for layer in layers},
                emas=tuple(tensors[f"{layer}.ema"] for layer in layers if f"{layer}.ema" in tensors),
            )
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise OutputError(f"The fast weights in {str(path)!r} cannot be read: {error}") from error

    def check(self, model: PreTrainedModel) -> None:
        """Find out whether they can be those of a model.

        Raises:
            ModelError: its heads are others.
        """
        heads, _, width = head_counts(model.config)
        # All heads must be this model's, or the answer would be another model's.
        shapes = {tuple(update.value.shape) for update in self.updates.values()}
        layers = int(model.config.num_hidden_layers)
        if shapes != {(heads, width)} or set(self.updates) != set(range(layers)):
            raise ModelError(
                f"These fast weights are of {len(self.updates)} layers with heads {sorted(shapes)}; the model has "
                f"{layers} layers of {heads} heads with {width} numbers. Use the model that they were made for."
            )


def _read(layer: int, tensors: Mapping[str, Tensor]) -> HeadUpdate:
    """One layer's update out of a file's tensors."""
    point, log_mass, value = (tensors[f"{layer}.{name}"] for name in ("point", "log_mass", "value"))
    slope, matrix = (tensors.get(f"{layer}.{name}") for name in ("slope", "matrix"))
    return HeadUpdate(point=point, log_mass=log_mass, value=value, slope=slope, matrix=matrix)


def _on(update: HeadUpdate, device: torch.device) -> HeadUpdate:
    moved = {name: value.to(device) for name, value in vars(update).items() if value is not None}
    return replace(update, **moved)


def fast_weights(
    model: PreTrainedModel,
    demonstrations: Demonstrations,
    held_out: Iterable[QueryBatch],
    *,
    rung: FastRung = "affine",
    scope: Scope = "query",
) -> FastWeights:
    """What demonstrations leave in every head of a model.

    Args:
        model: a causal language model of a supported architecture.
        demonstrations: the examples.
        held_out: prompts whose mean query is the expansion point; neither demonstrations nor the queries to come.
        rung: how attention to them is approximated.
        scope: whose attention they will stand in; `query` or `alone`.

    Raises:
        ModelError: the architecture cannot be probed, or a sliding window cuts the demonstrations.
        ValueError: the rung or the scope needs the demonstrations.
    """
    if rung not in get_args(FastRung) or scope == "probe":
        raise ValueError(f"Rung {rung!r} in scope {scope!r} cannot do without the demonstrations.")
    bos = len(demonstrations.bos)
    with Capture(model) as capture:
        prefix = capture.prefix(demonstrations.prefix_token_ids)
        assert prefix is not None
        survey = Survey(len(prefix.keys), bos, scope).of(capture, prefix, held_out)
    return stored(survey.rungs()[rung], prefix, demonstrations, rung, scope)


def stored(
    updates: Mapping[int, object], prefix: Prefix, demonstrations: Demonstrations, rung: FastRung, scope: Scope
) -> FastWeights:
    """A rung's updates as an object of their own."""
    return FastWeights(
        rung=rung,
        scope=scope,
        bos=demonstrations.bos,
        prefix_length=prefix.length,
        # `isinstance` narrows the type: rungs that need tokens are no `HeadUpdate`.
        updates={layer: update for layer, update in updates.items() if isinstance(update, HeadUpdate)},
        emas=prefix.emas,
    )
