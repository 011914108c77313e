"""Momentum by plain loops in float64, put under a model of eager attention: what the fast ways are held against."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Kernel = Callable[[int, int, int], float]
"""What a token so many tokens before contributes to a query head of a layer: (layer, head, tokens ago)."""


def added_by_loops(model: PreTrainedModel, kernel: Kernel) -> list[object]:
    """Arguments of `monkeypatch.setattr` that let a plain model's eager attention add the values before each token."""
    source = sys.modules[type(model).__module__]
    plain = source.eager_attention_forward

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: object, **kwargs: object) -> object:
        out, weights = plain(module, query, key, value, *rest, **kwargs)
        groups = query.shape[1] // value.shape[1]
        added = torch.zeros_like(query[..., :1].expand(*query.shape[:3], value.shape[-1]), dtype=torch.float64)
        for head in range(query.shape[1]):
            for t in range(value.shape[2]):
                for i in range(t):
                    added[:, head, t] += kernel(module.layer_idx, head, t - i) * value[:, head // groups, i].double()
        return (out.double() + added.transpose(1, 2)).to(out.dtype), weights

    return [source, "eager_attention_forward", attend]
