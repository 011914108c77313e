"""The slow side of the dual form: plain transformers, one whole sequence at a time, token by token in float64."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from plain_passes import OUTPUT, attention_modules, watched
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

BLOCKS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers", "opt": "model.decoder.layers"} | dict.fromkeys(
    ("gpt_neo", "gptj", "bloom", "falcon"), "transformer.h"
)


@dataclass
class Heads:
    """One sequence, layer by layer, as plain transformers sees it; float64."""

    query: list[np.ndarray]
    """(head, head width) of the last token, after rotary embedding"""
    key: list[np.ndarray]
    """(head, token, head width), groups repeated"""
    value: list[np.ndarray]
    """(head, token, head width), groups repeated"""
    scaling: list[float]
    output: list[np.ndarray]
    """(head, head width) of the last token, what the output projection is given, without momentum's moving average"""
    mlp: list[tuple[nn.Module, np.ndarray]]
    """The MLP's first matrices, found as the first called outside attention, and their input at the last token"""


def _values(module: nn.Module, model_type: str, projected: Tensor, config: object) -> Tensor:
    """(token, head, head width) values out of a projection, by the layout its family documents."""
    tokens, heads = projected.shape[1], config.num_attention_heads
    if model_type == "gpt2":
        return projected[0, :, 2 * config.hidden_size :].view(tokens, heads, -1)
    if model_type == "gpt_neox":
        return projected[0].view(tokens, heads, 3, -1)[:, :, 2]
    if model_type == "phi3":
        return projected[0, :, -config.num_key_value_heads * module.head_dim :].view(tokens, -1, module.head_dim)
    if model_type == "bloom":
        return module._reshape(projected)[2][0].transpose(0, 1)
    if model_type == "falcon":
        return module._split_heads(projected)[2][0]
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return projected[0].view(tokens, -1, width)


def look_at_heads(model: PreTrainedModel, token_ids: Sequence[int], shift: int = 0) -> Heads:
    """One forward pass of a sequence whose first token stands at position `shift`."""
    model_type, config = model.config.model_type, model.config
    seen = Heads(query=[], key=[], value=[], scaling=[], output=[], mlp=[])
    with ExitStack() as stack:
        for module in attention_modules(model):
            fused = next((n for n in ("c_attn", "query_key_value", "qkv_proj") if hasattr(module, n)), None)

            def keep_value(_: nn.Module, __: object, output: Tensor, module: nn.Module = module) -> None:
                value = _values(module, model_type, output.detach(), config).transpose(0, 1).double()
                seen.value.append(value.repeat_interleave(config.num_attention_heads // len(value), 0).numpy())

            def keep_output(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                last = arguments[0].detach().reshape(len(token_ids), -1)[-1].double()
                seen.output.append(last.view(config.num_attention_heads, -1).numpy())

            stack.callback(getattr(module, fused or "v_proj").register_forward_hook(keep_value).remove)
            output = getattr(module, OUTPUT.get(model_type, "o_proj"))
            stack.callback(output.register_forward_pre_hook(keep_output).remove)
        _watch_mlps(model, seen, len(token_ids), stack)
        after = stack.enter_context(watched(model))
        positions = {} if model_type == "bloom" else {"position_ids": torch.arange(len(token_ids))[None] + shift}
        with torch.no_grad():
            model(input_ids=torch.tensor([list(token_ids)]), use_cache=False, **positions)
    for query, key, scaling in after["after"]:
        seen.query.append(query[:, -1].double().numpy())
        seen.key.append(key.double().numpy())
        seen.scaling.append(scaling)
    if getattr(config, "momentum_attention", None):
        for layer, module in enumerate(attention_modules(model)):
            seen.output[layer] -= _moving_average(module, layer, seen.value[layer])
    return seen


def _moving_average(module: nn.Module, layer: int, value: np.ndarray) -> np.ndarray:
    """(head, head width) what momentum adds at the last token: tokens before it one by one, then weight and gate."""
    asked = module.config.momentum_attention
    if hasattr(module, "momentum_logit"):
        learnt = module.momentum_logit.detach().double().numpy()
        eta = 1 / (1 + np.exp(-learnt.repeat(len(value) // len(learnt))))
    else:
        given = asked["eta"]
        eta = np.full(len(value), given[layer] if isinstance(given, list) else given)
    total = np.zeros((len(value), value.shape[-1]))
    for token in range(value.shape[1] - 1):
        total = eta[:, None] * (total + value[:, token])
    if asked["form"] == "mean":
        total *= ((1 - eta) / eta)[:, None]
    if hasattr(module, "momentum_gate"):
        total *= module.momentum_gate.detach().double().numpy()[:, None]
    return total


def _watch_mlps(model: PreTrainedModel, seen: Heads, tokens: int, stack: ExitStack) -> None:
    """The first linear modules of a block that are called outside its attention and share one input."""
    attentions = [set(module.modules()) for module in attention_modules(model)]
    blocks = model.get_submodule(BLOCKS.get(model.config.model_type, "model.layers")).children()
    for block, attention in zip(blocks, attentions, strict=True):
        called: list[nn.Module] = []

        def keep(module: nn.Module, arguments: tuple[Tensor, ...], called: list[nn.Module] = called) -> None:
            called.append(module)
            if len(called) == 1:
                seen.mlp.append((module, arguments[0].detach().reshape(tokens, -1)[-1].double().numpy()))

        for module in block.modules():
            if isinstance(module, nn.Linear | Conv1D) and module not in attention:
                stack.callback(module.register_forward_pre_hook(keep).remove)


def matrix(view: Heads, layer: int, head: int, tokens: Sequence[int]) -> np.ndarray:
    """Σ_j v_j ⊗ k_j over some tokens, one by one."""
    total = np.zeros((view.value[layer].shape[-1], view.key[layer].shape[-1]))
    for token in tokens:
        total += np.outer(view.value[layer][head, token], view.key[layer][head, token])
    return total


def cos(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
