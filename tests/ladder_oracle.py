"""The slow side of the ladder: plain transformers, one sequence at a time; expansions by automatic differentiation.

A hook before each output projection overwrites what some tokens' heads give with what the rung says, so that the next
layers see it. Float64 throughout, except for what transformers itself computes.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from dual_oracle import _moving_average, _values
from plain_passes import OUTPUT, attention_modules, watched
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass
class Layer:
    """One layer as some sequence shows it; float64, groups repeated."""

    query: Tensor
    """(head, token, width)"""
    key: Tensor
    value: Tensor
    scaling: float
    softcap: float | None
    bias: Tensor
    """(head, token), added to scores"""

    def scores(self, head: int, query: Tensor, tokens: Sequence[int]) -> Tensor:
        scores = self.scaling * self.key[head, list(tokens)] @ query
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        return scores + self.bias[head, list(tokens)]

    def attention(self, head: int, query: Tensor, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
        """N / Z and log Z."""
        scores = self.scores(head, query, tokens)
        return scores.softmax(-1) @ self.value[head, list(tokens)], scores.logsumexp(-1)


@dataclass
class Expansions:
    """By layer and head: expansion point, and value, Jacobian and Hessian of (N / Z, log Z) there; β."""

    point: list[Tensor]
    factor: list[Tensor]
    derivatives: list[list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=list)


@dataclass
class Sight:
    logits: Tensor
    """(vocabulary), after the last token"""
    outputs: list[Tensor]
    """by layer (width) of the last token"""
    layers: list[Layer]


def _bias(model: PreTrainedModel, tokens: int, width: int) -> Tensor:
    config = model.config
    heads = config.num_attention_heads
    if config.model_type != "bloom" and not getattr(config, "alibi", False):
        return torch.zeros(heads, tokens, dtype=torch.float64)
    slopes = torch.tensor([2.0 ** (-8 * (head + 1) / heads) for head in range(heads)], dtype=torch.float64)
    bias = slopes[:, None] * torch.arange(tokens)
    return bias if config.model_type == "bloom" else bias * width**-0.5


def see(
    model: PreTrainedModel,
    token_ids: Sequence[int],
    rungs: Mapping[int, str] | None = None,
    expansions: Expansions | None = None,
    bos: int = 0,
    prefix: int = 0,
    shift: int = 0,
) -> Sight:
    """One forward pass; `rungs` says for some tokens by which rung they meet tokens bos..prefix."""
    config, layers, values, outputs = model.config, [], [], []

    def keep_value(module: nn.Module, _: object, output: Tensor, attention: nn.Module) -> None:
        value = _values(attention, config.model_type, output.detach(), config).transpose(0, 1).double()
        values.append(value.repeat_interleave(config.num_attention_heads // len(value), 0))

    def replace(module: nn.Module, arguments: tuple[Tensor, ...], attention: nn.Module) -> tuple[Tensor, ...]:
        number = len(layers)
        query, key, scaling = seen["after"][number]
        cap = getattr(config, "attn_logit_softcapping", None)
        bias = _bias(model, len(token_ids), key.shape[-1])
        layer = Layer(query.double(), key.double(), values[number], scaling, cap, bias)
        layers.append(layer)
        states = arguments[0].clone()
        rows = states.view(len(token_ids), config.num_attention_heads, -1)
        for token, rung in (rungs or {}).items():
            for head in range(config.num_attention_heads):
                rows[token, head] = _met(layer, number, head, token, rung, expansions, bos, prefix).to(states.dtype)
            if getattr(config, "momentum_attention", None):
                until = values[number][:, : token + 1].numpy()
                rows[token] += torch.from_numpy(_moving_average(attention, number, until)).to(states.dtype)
        return (states, *arguments[1:])

    with ExitStack() as stack:
        for attention in attention_modules(model):
            fused = next((name for name in ("c_attn", "query_key_value", "qkv_proj") if hasattr(attention, name)), None)
            projection = getattr(attention, fused or "v_proj")
            output = getattr(attention, OUTPUT.get(config.model_type, "o_proj"))
            for hook in (
                projection.register_forward_hook(lambda m, i, o, a=attention: keep_value(m, i, o, a)),
                output.register_forward_pre_hook(lambda m, i, a=attention: replace(m, i, a)),
                output.register_forward_hook(lambda m, i, o: outputs.append(o.reshape(len(token_ids), -1)[-1])),
            ):
                stack.callback(hook.remove)
        seen = stack.enter_context(watched(model))
        with torch.no_grad():
            placed = {"position_ids": torch.arange(len(token_ids))[None] + shift} if shift else {}
            logits = model(input_ids=torch.tensor([list(token_ids)]), use_cache=False, **placed).logits[0, -1]
    return Sight(logits, outputs, layers)


def _met(
    layer: Layer, number: int, head: int, token: int, rung: str, expansions: Expansions | None, bos: int, prefix: int
) -> Tensor:
    query = layer.query[head, token]
    own, own_lse = layer.attention(head, query, [*range(bos), *range(prefix, token + 1)])
    if rung == "none":
        return own
    if rung == "softmax":
        return _joined(own, own_lse, *layer.attention(head, query, range(bos, prefix)))
    assert expansions is not None
    if rung.startswith("linear"):
        total = sum((layer.key[head, i] @ query) * layer.value[head, i] for i in range(bos, prefix))
        return own + (1.0 if rung == "linear-raw" else expansions.factor[number][head]) * total
    value, slope, bend = expansions.derivatives[number][head]
    moved = query - expansions.point[number][head]
    terms = [value, slope @ moved, bend @ moved @ moved / 2]
    orders = {"constant": (1, 1), "constant-mass": (1, 2), "affine": (2, 2), "quadratic": (3, 3)}[rung]
    return _joined(own, own_lse, sum(terms[: orders[0]])[:-1], sum(terms[: orders[1]])[-1])


def _joined(own: Tensor, own_lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    share = torch.sigmoid(other_lse - own_lse)
    return (1 - share) * own + share * other


def expand(
    model: PreTrainedModel, held_out: Sequence[Sequence[int]], prefix_ids: Sequence[int], bos: int, every_token: bool
) -> Expansions:
    """Survey held-out prompts in context, one by one, then differentiate."""
    prefix, heads, sights = len(prefix_ids), model.config.num_attention_heads, []
    for prompt in held_out:
        sights.append((see(model, [*prefix_ids, *prompt]), len(prompt)))
    expansions = Expansions([], [])
    for number in range(len(sights[0][0].layers)):
        points, factors = [], []
        for head in range(heads):
            queries, dot, square = [], 0.0, 0.0
            for sight, length in sights:
                layer = sight.layers[number]
                last = prefix + length - 1
                for token in range(prefix, last + 1) if every_token else [last]:
                    query = layer.query[head, token]
                    queries.append(query)
                    own, own_lse = layer.attention(head, query, [*range(bos), *range(prefix, token + 1)])
                    change = _joined(own, own_lse, *layer.attention(head, query, range(bos, prefix))) - own
                    total = sum((layer.key[head, i] @ query) * layer.value[head, i] for i in range(bos, prefix))
                    dot, square = dot + change @ total, square + total @ total
            points.append(torch.stack(queries).mean(0))
            factors.append(dot / square)
        layer = sights[0][0].layers[number]

        def both(query: Tensor, head: int, layer: Layer = layer) -> Tensor:
            output, mass = layer.attention(head, query, range(bos, prefix))
            return torch.cat([output, mass[None]])

        expansions.point.append(torch.stack(points))
        expansions.factor.append(torch.stack(factors))
        expansions.derivatives.append([_derivatives(both, head, points[head]) for head in range(heads)])
    return expansions


def _derivatives(both: Callable[[Tensor, int], Tensor], head: int, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    def slope(query: Tensor) -> Tensor:
        return torch.autograd.functional.jacobian(lambda q: both(q, head), query, create_graph=True)

    return both(point, head), slope(point).detach(), torch.autograd.functional.jacobian(slope, point)
