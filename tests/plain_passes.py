"""What plain transformers computes with eager attention, one sequence at a time, and fine-tuning by hand.

No cache, no padding, no shared prefix, none of the package's capture or fine-tuning code: hooks and patches of its own
see queries and keys. Slow on purpose; use tiny models.
"""

import copy
import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_icl.data.queries import Query
from lightning_icl.records import Demonstrations

ATTENTION = {
    "gpt2": "transformer.h.{}.attn",
    "gpt_neox": "gpt_neox.layers.{}.attention",
    "opt": "model.decoder.layers.{}.self_attn",
    "gpt_neo": "transformer.h.{}.attn.attention",
    "gptj": "transformer.h.{}.attn",
    "bloom": "transformer.h.{}.self_attention",
    "falcon": "transformer.h.{}.self_attention",
}
OUTPUT = {"gpt2": "c_proj", "gpt_neox": "dense", "opt": "out_proj", "phi": "dense", "xglm": "out_proj",
          "gpt_neo": "out_proj", "gptj": "out_proj", "bloom": "dense", "falcon": "dense"}  # fmt: skip


@dataclass
class Seen:
    """What one forward pass of one sequence shows, layer by layer."""

    logits: Tensor
    """(token, vocabulary)"""
    outputs: list[Tensor]
    """(token, width) after the output projection"""
    queries: list[Tensor]
    """(token, heads * head width) before rotary embedding"""
    scores: list[Tensor]
    """(head, token, token) scaled, before cap, bias and mask"""


def attention_modules(model: PreTrainedModel) -> list[nn.Module]:
    path = ATTENTION.get(model.config.model_type, "model.layers.{}.self_attn")
    return [model.get_submodule(path.format(layer)) for layer in range(model.config.num_hidden_layers)]


def _split_query(module: nn.Module, model_type: str, fused: Tensor, config: object) -> Tensor:
    """(token, heads, head width) queries out of a fused projection, by the layout its family documents."""
    tokens = fused.shape[0]
    heads = config.num_attention_heads
    if model_type == "gpt2":
        return fused[:, : config.hidden_size].view(tokens, heads, -1)
    if model_type == "phi3":
        return fused[:, : heads * module.head_dim].view(tokens, heads, -1)
    if model_type == "gpt_neox":
        return fused.view(tokens, heads, 3, -1)[:, :, 0]
    if model_type == "bloom":
        return module._reshape(fused[None])[0][0].transpose(0, 1)
    return module._split_heads(fused[None])[0][0]


@contextmanager
def watched(model: PreTrainedModel) -> Iterator[dict[str, list[Tensor]]]:
    """Record queries before rotary embedding, queries and keys after it, scaling, and outputs."""
    model_type, config = model.config.model_type, model.config
    seen: dict[str, list] = {"queries": [], "outputs": [], "after": []}
    modules = attention_modules(model)
    with ExitStack() as stack:

        def query_hook(_: nn.Module, __: object, output: Tensor) -> None:
            seen["queries"].append(output.detach())

        for module in modules:
            projection = OUTPUT.get(model_type, "o_proj")
            stack.callback(
                getattr(module, projection)
                .register_forward_hook(lambda _, __, output: seen["outputs"].append(output.detach()))
                .remove
            )
            if model_type in ("qwen3", "gemma3_text", "olmo2"):
                watch = module.q_norm
            elif hasattr(module, "q_proj"):
                watch = module.q_proj
            else:
                watch = next(
                    getattr(module, n) for n in ("c_attn", "query_key_value", "qkv_proj") if hasattr(module, n)
                )
            stack.callback(watch.register_forward_hook(query_hook).remove)
        stack.enter_context(_watched_after_rotary(model_type, config, modules, seen))
        yield seen


@contextmanager
def _watched_after_rotary(model_type: str, config: object, modules: list[nn.Module], seen: dict) -> Iterator[None]:
    """Fill `seen["after"]` with (query (H, T, D), key (H, T, D), scaling)."""
    with ExitStack() as stack:
        if model_type in ("xglm", "gpt_neo"):  # no rotary embedding: scores are those of the projections
            for module in modules:
                kept: dict[str, Tensor] = {}
                scale = module.scaling if model_type == "xglm" else 1.0

                def keep(module_: nn.Module, _: object, output: Tensor, name: str, kept: dict, scale: float) -> None:
                    heads = config.num_attention_heads
                    kept[name] = output.detach()[0].unflatten(-1, (heads, -1)).transpose(0, 1)
                    if name == "k":
                        seen["after"].append((kept["q"], kept["k"], scale))

                for name in ("q", "k"):
                    hook = lambda m, i, o, name=name, kept=kept, scale=scale: keep(m, i, o, name, kept, scale)  # noqa: E731
                    stack.callback(getattr(module, f"{name}_proj").register_forward_hook(hook).remove)
        elif model_type == "gptj":
            for module in modules:
                own = module._attn

                def attn(
                    query: Tensor, key: Tensor, *rest: object, own: object = own, module: object = module
                ) -> object:
                    seen["after"].append((query.detach()[0], key.detach()[0], 1 / math.sqrt(module.head_dim)))
                    return own(query, key, *rest)

                stack.enter_context(mock.patch.object(module, "_attn", attn))
        elif model_type == "bloom" or (model_type == "falcon" and config.alibi):
            for module in modules:

                def split(_: nn.Module, __: object, output: Tensor, module: nn.Module = module) -> None:
                    if model_type == "bloom":
                        query, key, _value = module._reshape(output.detach())
                    else:
                        query, key, _value = (part.transpose(1, 2) for part in module._split_heads(output.detach()))
                    seen["after"].append((query[0], key[0], 1 / math.sqrt(module.head_dim)))

                stack.callback(module.query_key_value.register_forward_hook(split).remove)
        elif model_type == "falcon":
            source = importlib.import_module("transformers.models.falcon.modeling_falcon")
            rotate = source.apply_rotary_pos_emb

            def rotated(query: Tensor, key: Tensor, *rest: object) -> object:
                query, key = rotate(query, key, *rest)
                full = key.expand(-1, query.shape[1], -1, -1) if key.shape[1] == 1 else key
                seen["after"].append((query.detach()[0], full.detach()[0], 1 / math.sqrt(query.shape[-1])))
                return query, key

            stack.enter_context(mock.patch.object(source, "apply_rotary_pos_emb", rotated))
        else:
            name = {"gemma3_text": "gemma3"}.get(model_type, model_type)
            source = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
            eager = source.eager_attention_forward

            def attend(
                module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: object
            ) -> object:
                scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
                groups = query.shape[1] // key.shape[1]
                full = key.detach()[0].repeat_interleave(groups, 0)
                seen["after"].append((query.detach()[0], full, scale))
                return eager(module, query, key, value, mask, **kwargs)

            stack.enter_context(mock.patch.object(source, "eager_attention_forward", attend))
        yield


@contextmanager
def softmax_in_own_type() -> Iterator[None]:
    """Eager attention takes its softmax in float32 whatever the model's type; here a float64 model keeps float64."""
    narrow = nn.functional.softmax

    def wide(scores: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        return narrow(scores, dim=dim, dtype=None if scores.dtype == torch.float64 else dtype)

    with mock.patch.object(nn.functional, "softmax", wide):
        yield


def look(
    model: PreTrainedModel, token_ids: Sequence[int], grad: bool = False, positions: Sequence[int] | None = None
) -> Seen:
    """One forward pass of one whole sequence, at plain positions or given ones."""
    model_type, config = model.config.model_type, model.config
    ids, placed = torch.tensor([list(token_ids)]), {}
    if positions is not None:
        placed = {"position_ids": torch.tensor([list(positions)]), "attention_mask": torch.ones_like(ids)}
    with watched(model) as seen, torch.set_grad_enabled(grad), softmax_in_own_type():
        logits = model(input_ids=ids, use_cache=False, **placed).logits[0]
    queries = []
    for module, raw in zip(attention_modules(model), seen["queries"], strict=True):
        if model_type == "gemma3_text":
            raw = raw.transpose(1, 2)
        raw = raw[0]
        if not hasattr(module, "q_proj"):
            raw = _split_query(module, model_type, raw, config)
        queries.append(raw.reshape(len(token_ids), -1))
    scores = [(query.double() @ key.double().mT) * scale for query, key, scale in seen["after"]]
    outputs = [output.reshape(len(token_ids), -1) for output in seen["outputs"]]
    return Seen(logits=logits, outputs=outputs, queries=queries, scores=scores)


def kv_masks(model: PreTrainedModel) -> dict[str, Tensor]:
    """For each key/value parameter a mask of its key/value entries, found by perturbing: no table of layouts."""
    masks = {}
    for layer, module in enumerate(attention_modules(model)):
        del layer
        for name, parameter in module.named_parameters():
            if name.split(".")[0] in ("k_proj", "v_proj"):
                masks[_name_of(model, parameter)] = torch.ones_like(parameter, dtype=torch.bool)
            elif name.split(".")[0] in ("c_attn", "query_key_value", "qkv_proj"):
                masks[_name_of(model, parameter)] = ~_query_entries(model, module, name, parameter)
    return masks


def _name_of(model: PreTrainedModel, wanted: Tensor) -> str:
    return next(name for name, parameter in model.named_parameters() if parameter is wanted)


def _query_entries(model: PreTrainedModel, module: nn.Module, name: str, parameter: Tensor) -> Tensor:
    """Entries of a fused parameter whose outputs `_split_query` reads."""
    transposed = model.config.model_type == "gpt2" and name.endswith("weight")
    outputs = parameter.shape[1] if transposed else parameter.shape[0]
    numbered = torch.arange(outputs, dtype=torch.float32)[None]
    rows = _split_query(module, model.config.model_type, numbered, model.config).flatten().long()
    mask = torch.zeros(outputs, dtype=torch.bool)
    mask[rows] = True
    if parameter.dim() == 1:
        return mask
    return mask[None].expand_as(parameter) if transposed else mask[:, None].expand_as(parameter)


@dataclass
class Tuned:
    model: PreTrainedModel
    losses: list[float]
    update_norms: list[float]
    queries: list[Tensor]
    """Per layer (demonstration token, width)"""


def fine_tune(
    model: PreTrainedModel,
    demonstrations: Demonstrations,
    rate: float,
    masks: dict[str, Tensor] | None = None,
    gradients: Callable[[PreTrainedModel, list[int]], dict[str, Tensor]] | None = None,
) -> Tuned:
    """A plain loop: one hand-written SGD step for each demonstration, on a copy of the model; keys and values learn.

    Gradients are those of the model's loss unless another way to find them is given.
    """
    tuned = copy.deepcopy(model)
    masks = kv_masks(tuned) if masks is None else masks
    before = {name: parameter.detach().clone() for name, parameter in tuned.named_parameters()}
    losses, queries = [], []
    for example in demonstrations.examples:
        ids = [*demonstrations.bos, *example]
        tuned.zero_grad()
        seen = look(tuned, ids, grad=True)
        logs = seen.logits.log_softmax(-1)
        given = max(1, len(demonstrations.bos))  # of a chat's header nothing is learnt
        loss = -sum(logs[place, ids[place + 1]] for place in range(given - 1, len(ids) - 1)) / (len(ids) - given)
        loss.backward()
        other = {} if gradients is None else gradients(tuned, ids)
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if name in masks:
                    parameter -= rate * other.get(name, parameter.grad) * masks[name]
        losses.append(float(loss.detach()))
        queries.append([layer[len(demonstrations.bos) :] for layer in seen.queries])
    norms = [0.0] * model.config.num_hidden_layers
    modules = attention_modules(tuned)
    for layer, module in enumerate(modules):
        for parameter in module.parameters():
            name = _name_of(tuned, parameter)
            norms[layer] += float((parameter.detach() - before[name]).double().square().sum())
    return Tuned(
        model=tuned.eval(),
        losses=losses,
        update_norms=[norm**0.5 for norm in norms],
        queries=[torch.cat(layers) for layers in zip(*queries, strict=True)],
    )


def layer_causal_gradients(model: PreTrainedModel, token_ids: list[int], reading: str) -> dict[str, Tensor]:
    """Each attention layer's gradient of its own loss, with nothing stopped: no layer below depends on its weights.

    Its own loss is that of the final norm and the unembedding on the residual stream after its attention, or after its
    block; for `gpt2` and `llama` models.
    """
    gpt2 = model.config.model_type == "gpt2"
    body = model.transformer if gpt2 else model.model
    norm, blocks = (body.ln_f, body.h) if gpt2 else (body.norm, body.layers)
    before, attended, after = [], [], []
    with ExitStack() as stack:
        for block, attention in zip(blocks, attention_modules(model), strict=True):
            hooks = (
                block.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0])),
                attention.register_forward_hook(lambda _, __, output: attended.append(before[-1] + output[0])),
                block.register_forward_hook(
                    lambda _, __, output: after.append(output[0] if isinstance(output, tuple) else output)
                ),
            )
            for hook in hooks:
                stack.callback(hook.remove)
        model(input_ids=torch.tensor([token_ids]), use_cache=False)
    found = {}
    states = attended if reading == "attention" else after
    for state, attention in zip(states, attention_modules(model), strict=True):
        logs = model.lm_head(norm(state))[0].log_softmax(-1)
        loss = -sum(logs[place, token] for place, token in enumerate(token_ids[1:])) / (len(token_ids) - 1)
        own = [
            parameter for name, parameter in attention.named_parameters() if not name.startswith(("c_proj", "o_proj"))
        ]
        for parameter, gradient in zip(own, torch.autograd.grad(loss, own, retain_graph=True), strict=True):
            found[_name_of(model, parameter)] = gradient
    return found


def answer_scores(model: PreTrainedModel, prefix: Sequence[int], query: Query, gap: int = 0) -> list[float]:
    scores = []
    for answer in query.answers:
        ids = [*prefix, *query.prompt_ids, *answer]
        logs = look(model, ids, positions=behind(len(prefix), len(ids), gap)).logits.log_softmax(-1)
        start = len(ids) - len(answer)
        scores.append(float(sum(logs[start + number - 1, token] for number, token in enumerate(answer))) / len(answer))
    return scores


def behind(prefix: int, tokens: int, gap: int) -> list[int] | None:
    """Positions of a sequence whose query stands some positions behind its prefix; None where it follows at once."""
    return [*range(prefix), *range(prefix + gap, tokens + gap)] if gap else None


def probe_sequence(prefix: Sequence[int], query: Query) -> list[int]:
    own = [*query.prompt_ids, *(query.answers[0] if query.probe_token == "answer" else ())]
    return [*prefix, *own]
