"""Adapters: architectures whose attention bypasses the interface of transformers, routed through `attend` for a visit.

An adapter is a forward function for one kind of attention module. It projects and rotates as the module's own does,
leaves attention itself to `attend`, and is taken off when the visit ends. B batch, T tokens, E width.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.bloom import modeling_bloom
from transformers.models.falcon import modeling_falcon
from transformers.models.gptj import modeling_gptj

from lightning_icl.attention.precision import at_least_float32
from lightning_icl.models.architecture import architecture_of

Attend = Callable[..., tuple[Tensor, None]]


@contextmanager
def adapted(model: PreTrainedModel, attend: Attend) -> Iterator[None]:
    """Every attention module of an architecture with an adapter runs it until the context ends.

    Args:
        model: the model; nothing happens where its architecture uses the interface itself.
        attend: the attention function, `(B, T, H, D)` from module and `(B, H, T, D)` states.
    """
    architecture = architecture_of(model.config)
    if not architecture.adapter:
        yield
        return
    blocks = model.get_submodule(architecture.layers)
    modules = [block.get_submodule(architecture.attention) for block in blocks.children()]
    forward = _FORWARDS[architecture.model_type]
    # Bound with `partial` and not as methods: the forward function is one for all modules of a family.
    with replaced_forwards({module: partial(forward, module, attend) for module in modules}):
        yield


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Modules run other forward functions until the context ends."""
    # Only forwards set on the instance: others come from the class, and deleting ours brings them back.
    before = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    # Undone even when the visit fails, or the user's model would stay routed through a closed capture.
    finally:
        for module in forwards:
            del module.forward
        for module, forward in before.items():
            module.forward = forward


def _heads_first(states: Tensor, heads: int) -> Tensor:
    """(B, H, T, D) from (B, T, H * D)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def _xglm(module: Any, attend: Attend, hidden_states: Tensor, **_: object) -> tuple[Tensor, None]:
    query, key, value = (
        _heads_first(projection(hidden_states), module.num_heads)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    out, _none = attend(module, query, key, value, scaling=module.scaling)
    return module.out_proj(out.flatten(2)), None


def _gpt_neo(module: Any, attend: Attend, hidden_states: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
    query, key, value = (
        _heads_first(projection(hidden_states), module.num_heads)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    window = module.config.window_size if module.attention_type == "local" else None
    # GPT-Neo was trained without a scale on its scores.
    out, _none = attend(module, query, key, value, scaling=1.0, sliding_window=window)
    return module.out_proj(out.flatten(2)), None


def _gptj(
    module: Any, attend: Attend, hidden_states: Tensor, *_: object, position_ids: Tensor, **__: object
) -> tuple[Tensor, None]:
    heads = module.num_attention_heads
    query, key, value = (
        projection(hidden_states).unflatten(-1, (heads, -1))
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    # The module keeps sine and cosine side by side, one row per position.
    sin, cos = module.embed_positions.to(query)[position_ids].chunk(2, dim=-1)
    # GPT-J rotates only the first part of each head; the rest passes as it is.
    width = module.rotary_dim or module.head_dim
    query, key = (
        torch.cat(
            [modeling_gptj.apply_rotary_pos_emb(states[..., :width], sin, cos), states[..., width:]], dim=-1
        ).transpose(1, 2)
        for states in (query, key)
    )
    out, _none = attend(module, query, key, value.transpose(1, 2))
    return module.out_proj(out.flatten(2)), None


def _bloom(
    module: Any, attend: Attend, hidden_states: Tensor, residual: Tensor, *_: object, **__: object
) -> tuple[Tensor, None]:
    # Fused by head: query, key and value of a head stand together.
    query, key, value = module.query_key_value(hidden_states).unflatten(-1, (module.num_heads, 3, -1)).unbind(-2)
    out, _none = attend(
        module,
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        scaling=module.inv_norm_factor,
        position_bias=partial(_alibi, modeling_bloom.build_alibi_tensor, module.num_heads, hidden_states, module.beta),
    )
    # BLOOM adds the residual inside its attention module, so the output projection alone is what is recorded.
    return module.dense(out.flatten(2)) + residual, None


def _falcon(
    module: Any,
    attend: Attend,
    hidden_states: Tensor,
    alibi: Tensor | None = None,
    *_: object,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    **__: object,
) -> tuple[Tensor, None]:
    fused = module.query_key_value(hidden_states)
    heads, kv_heads, width = module.num_heads, module.num_kv_heads, module.head_dim
    if module.new_decoder_architecture or not module.multi_query:  # [queries of a group, key, value] for each group
        groups = fused.unflatten(-1, (kv_heads, heads // kv_heads + 2, width))
        query, key, value = groups[..., :-2, :].flatten(2, 3), groups[..., -2, :], groups[..., -1, :]
    else:
        query, key, value = fused.unflatten(-1, (-1, width)).split((heads, 1, 1), dim=2)
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    # Falcon has rotary embedding or ALiBi, by configuration.
    bias = None
    if alibi is None and position_embeddings is not None:
        query, key = modeling_falcon.apply_rotary_pos_emb(query, key, *position_embeddings)
    else:
        bias = partial(_alibi, modeling_falcon.build_alibi_tensor, heads, hidden_states, module.inv_norm_factor)
    out, _none = attend(module, query, key, value, scaling=module.inv_norm_factor, position_bias=bias)
    return module.dense(out.flatten(2)), None


def _alibi(build: Callable[..., Tensor], heads: int, like: Tensor, factor: float, length: int) -> Tensor:
    """The model's own bias of each head at key positions 0..length-1, (H, length), as it is added to scaled scores."""
    ones = torch.ones(1, length, dtype=torch.long, device=like.device)
    # Built by the model's own function, with its rounding; widened only afterwards.
    return at_least_float32(build(ones, heads, like.dtype).view(heads, length)) * factor


_FORWARDS: dict[str, Callable[..., tuple[Tensor, None]]] = {
    "xglm": _xglm,
    "gpt_neo": _gpt_neo,
    "gptj": _gptj,
    "bloom": _bloom,
    "falcon": _falcon,
}
