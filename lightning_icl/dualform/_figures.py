"""Means over queries of everything the dual form shows: per layer, and per head where there is one.

Quantities of queries and outputs have one value for each query head; those of the matrices themselves one for each
key/value head, because a group of query heads shares its matrix.
"""

from typing import Any

import torch
from torch import Tensor

from lightning_icl.metrics.mean import QueryMeans

BY_QUERY_HEAD = (
    "linear_error",
    "linear_error_without_scale",
    "linear_cosine",
    "first_order_error",
    "first_order_cosine",
    "update_cosine",
    "effect_cosine",
)
BY_MATRIX = (
    "cosine",
    "norm_ratio",
    "left_overlap",
    "right_overlap",
    "icl_rank",
    "ft_rank",
    "zsl_icl_cosine",
    "zsl_ft_cosine",
    "own_drift",
)
BY_LAYER = ("visible", "patch_icl_size", "patch_ft_size", "patch_cosine", "patch_other_cosine")
LARGEST = ("identity_error", "patch_identity_error")


class DualFigures(QueryMeans):
    """Streaming means (and, for identities, largest errors) over queries.

    Args:
        layers: how many layers are looked at.
        heads: query heads.
        kv_heads: key/value heads.
        rank: principal angles kept.
        examples: demonstrations.
    """

    def __init__(self, *, layers: int, heads: int, kv_heads: int, rank: int, examples: int, **kwargs: Any) -> None:
        shapes: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(BY_QUERY_HEAD, (layers, heads)),
            **dict.fromkeys(BY_MATRIX, (layers, kv_heads)),
            **dict.fromkeys(("left_angles", "right_angles"), (layers, kv_heads, rank)),
            **dict.fromkeys(("share_projection", "share_norm"), (layers, kv_heads, examples)),
            **dict.fromkeys(BY_LAYER, (layers,)),
        }
        super().__init__(shapes, **kwargs)
        # Identities have a largest error and not a mean, so they are no means of the base class.
        self._means = tuple(shapes)
        self.shapes = shapes | dict(zip(LARGEST, ((layers, heads), (layers,)), strict=True))
        for name, shape in ((name, self.shapes[name]) for name in LARGEST):
            # `max` over processes: the largest error of a share is that of all.
            self.add_state(f"{name}_max", default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, layer: int, seen: dict[str, Tensor]) -> None:
        """Add some queries.

        Args:
            layer: which of the layers looked at, counted among these.
            seen: by quantity the values of one layer, (query, *shape).
        """
        for name, values in seen.items():
            if name in LARGEST:
                largest: Tensor = getattr(self, f"{name}_max")
                largest[layer] = torch.maximum(largest[layer], values.amax(0).to(largest))
                continue
            # Added by hand and not by the base class, whose update takes all layers at once.
            total, count = getattr(self, f"{name}_sum")[layer], getattr(self, f"{name}_count")[layer]
            defined = torch.isfinite(values)
            total += torch.where(defined, values.to(total), 0.0).sum(0)
            count += defined.sum(0)

    def has_shares(self, layer: int) -> bool:
        """Whether the shares of the demonstrations in one of the layers have been added."""
        count: Tensor = self.share_norm_count  # type: ignore[assignment]
        return bool(count[layer].any())

    def compute(self) -> dict[str, Tensor]:
        """By quantity its mean over queries, layers first; NaN for what was never defined.

        torchmetrics drops the axes of tensors that hold one number; `shapes` says what they were.
        """
        largest = {name: getattr(self, f"{name}_max") for name in LARGEST}
        return largest | {name: self._mean(name) for name in self._means}
