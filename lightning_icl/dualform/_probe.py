"""The LightningModule of the dual form: fine-tuned like any probe, validated by building the updates of every head."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_icl.attention.precision import at_least_float32
from lightning_icl.dualform._capture import DualCapture, LayerView
from lightning_icl.dualform._figures import DualFigures
from lightning_icl.dualform._layer import LayerPrefix, LayerTrio, layer_figures, patch_figures, share_figures
from lightning_icl.errors import NumericalError, ProtocolError
from lightning_icl.models.architecture import head_counts
from lightning_icl.models.kv import LaidOver, overlaid
from lightning_icl.models.recording import Prefix
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.records import VIEWS, Demonstrations, QueryBatch


@dataclass(frozen=True, kw_only=True)
class _View:
    """A condition made ready for a model, its first token at position `shift`."""

    prefix: Prefix | None
    overlay: LaidOver | None
    shift: int

    def observe(self, capture: DualCapture, batch: QueryBatch) -> dict[int, LayerView]:
        with overlaid(self.overlay):
            return capture.view(batch, self.prefix, self.shift)


class DualProbe(FinetunedModule):
    """A causal language model whose heads are read as matrices, and demonstrations as updates of them.

    `Trainer.fit` with a `KVFinetuning` callback makes ΔW_FT; `Trainer.validate` then streams over the queries and
    leaves `figures`, by quantity a tensor with one row for each of `layers`. Matrices exist for one layer and a piece
    of a batch at a time.

    Args:
        model: a Hugging Face causal language model of a supported architecture.
        demonstrations: the examples in the prompt, as an `ICLDataModule` chose them.
        layers: numbers of the layers to look at.
        rank: dimension of the subspaces compared; the head width where that is smaller.

    Raises:
        ModelError: the architecture cannot be probed rightly.
    """

    def __init__(
        self, model: PreTrainedModel, demonstrations: Demonstrations, layers: Sequence[int], rank: int = 4
    ) -> None:
        super().__init__(model, demonstrations)
        heads, kv_heads, width = head_counts(model.config)
        self.layers = tuple(layers)
        self.rank = min(rank, width)
        self.width = width
        self.dual = DualFigures(
            layers=len(self.layers), heads=heads, kv_heads=kv_heads, rank=self.rank, examples=len(demonstrations)
        )
        self.figures: dict[str, Tensor] = {}
        self.queries = 0
        self._dual_views: dict[str, _View] = {}
        self._moved: dict[int, Tensor] = {}

    @cached_property
    def dual_capture(self) -> DualCapture:
        """The visit to the model that looks at heads, opened for the length of a step."""
        return DualCapture(self.model, self.layers)

    def on_validation_epoch_start(self) -> None:
        """Run every condition's prefix once.

        Raises:
            ProtocolError: there was no fine-tuning to compare with.
        """
        if self.finetuned is None:
            raise ProtocolError("DualProbe compares with fine-tuning: run Trainer.fit with KVFinetuning first.")
        self.dual.reset()
        self.figures, self.queries, self._moved = {}, 0, {}
        bos, prefix = self.demonstrations.bos, self.demonstrations.prefix_token_ids
        # Compared in one frame: rotary keys of two inputs must be turned by the same angles.
        shift = self.dual_capture.architecture.zero_shot_shift(self.demonstrations)
        overlay = LaidOver(self.model, self.finetuned.overlay)
        with self.dual_capture:
            self._dual_views = {
                "zsl": _View(prefix=self.dual_capture.prefix_at(bos, shift), overlay=None, shift=shift),
                "icl": _View(prefix=self.dual_capture.prefix_at(prefix, 0), overlay=None, shift=0),
            }
            # The zero-shot prefix again, under fine-tuned weights: BOS has other keys there too.
            with overlay.active():
                tuned = self.dual_capture.prefix_at(bos, shift)
            self._dual_views["ft"] = _View(prefix=tuned, overlay=overlay, shift=shift)

    def validation_step(self, batch: QueryBatch, batch_idx: int) -> None:
        """Look at a batch under the three conditions, and at each layer's matrices in turn."""
        with self.dual_capture:
            seen = {name: view.observe(self.dual_capture, batch) for name, view in self._dual_views.items()}
        for number, layer in enumerate(self.layers):
            trio = LayerTrio(
                # Popped, so that a layer's keys and values are gone before the next one's matrices are made.
                **{name: views.pop(layer) for name, views in seen.items()},
                probe_index=batch.probe_index,
                prefix=self._prefix(layer, batch.probe_index.device),
            )
            self._check_finite(trio, layer)
            self._measure(number, layer, trio)
        self.queries += len(batch.query_ids)

    def _measure(self, number: int, layer: int, trio: LayerTrio) -> None:
        weight = self.dual_capture.first_mlp_matrix(layer)
        # The last query's move is kept for the control of the next batch.
        patches, self._moved[layer] = patch_figures(trio, weight, self._moved.get(layer))
        self.dual.update(number, patches)
        for piece in trio.pieces():
            self.dual.update(number, layer_figures(piece, self.rank))
            # Without a window the update is the same for every query: once is enough.
            if trio.icl.window is not None or not self.dual.has_shares(number):
                self.dual.update(number, share_figures(piece))

    def _prefix(self, layer: int, device: torch.device) -> LayerPrefix:
        """The keys and values of one layer's prefixes, in float32 or better."""
        bos = len(self.demonstrations.bos)
        icl = _states(self._dual_views["icl"].prefix, layer)
        heads, width = icl[0].shape[1], icl[0].shape[3]
        # Tokenizers without BOS have no prefix zero-shot.
        empty = icl[0].new_zeros(1, heads, 0, width)
        zsl, ft = (_states(self._dual_views[name].prefix, layer) if bos else (empty, empty) for name in ("zsl", "ft"))
        return LayerPrefix(
            demonstration_key=icl[0][:, :, bos:],
            demonstration_value=icl[1][:, :, bos:],
            example=torch.tensor(self.demonstrations.token_owner, device=device),
            bos=(icl[0][:, :, :bos], icl[1][:, :, :bos]),
            zsl_bos=zsl,
            ft_bos=ft,
        )

    def _check_finite(self, trio: LayerTrio, layer: int) -> None:
        for name in VIEWS:
            view: LayerView = getattr(trio, name)
            if not (torch.isfinite(view.output).all() and torch.isfinite(view.mlp_input).all()):
                raise NumericalError(
                    f"NaN or infinite numbers in layer {layer} under condition {name!r}. Nothing was measured. Use a "
                    "smaller --lr, or --precision 32-true."
                )

    def on_validation_epoch_end(self) -> None:
        """Means over all queries."""
        # torchmetrics drops axes of length one, which `shapes` restores.
        self.figures = {name: values.reshape(self.dual.shapes[name]) for name, values in self.dual.compute().items()}
        self._dual_views = {}


def _states(prefix: Prefix | None, layer: int) -> tuple[Tensor, Tensor]:
    assert prefix is not None
    return at_least_float32(prefix.keys[layer]), at_least_float32(prefix.values[layer])
