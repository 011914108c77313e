"""What is particular to each supported architecture: where its modules stand, and what its configuration means.

The rest of the room asks this table and never a model's class. Outputs are read at the output projection, before
any post-norm and before the residual is added (definitions, section 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lightning_icl.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from lightning_icl.records import Demonstrations

FusedLayout = Literal["blocks", "per_head", "grouped"]
NormLayout = Literal["flat", "tokens_first", "heads_first"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One row of the table of supported models."""

    model_type: str
    """`config.model_type` in transformers."""
    title: str
    """Family name, for people."""
    layers: str
    """Path of the list of blocks in the causal model."""
    attention: str
    """Path of the attention module inside a block."""
    projections: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj")
    """Query, key and value projections inside the attention module; the same name thrice where they are fused."""
    fused: FusedLayout | None = None
    """How a fused projection's outputs are laid out: Q, K, V in blocks; [q, k, v] per head; groups of q with k, v."""
    output: str = "o_proj"
    """Output projection inside the attention module."""
    query_norm: tuple[str, NormLayout] | None = None
    """Query normalisation inside the attention module, and the layout of its output."""
    first_mlp: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    """The MLP's first matrix inside a block; gated MLPs have two side by side."""
    final_norm: str = "model.norm"
    """Path of the normalisation between the last block and the unembedding."""
    adapter: bool = False
    """Whether it bypasses the attention interface and is routed through it by an adapter."""
    absolute_positions: bool = False
    """Whether positions are added to the token embeddings; else they are relative (rotary, ALiBi, or none)."""
    takes_positions: bool = True
    """Whether its forward pass takes position ids."""
    alibi: bool = False
    """Whether its positions always are a bias on scores (ALiBi); some others have the bias by configuration."""
    remark: str = ""
    """What is particular to it."""

    @property
    def mlp(self) -> tuple[str, ...]:
        """The MLP inside a block; its two matrices in families that have no module of it."""
        module = self.first_mlp[0].rpartition(".")[0]
        return (module,) if module else ("fc1", "fc2")

    def zero_shot_shift(self, demonstrations: "Demonstrations") -> int:
        """Where BOS must stand for a zero-shot query's tokens to have the positions they have after the demonstrations.

        Rotary keys of two inputs can be compared only where the same token is turned by the same angle. Learned
        positions are part of what a token is: there nothing is moved.
        """
        return 0 if self.absolute_positions else len(demonstrations.prefix_token_ids) - len(demonstrations.bos)


def _gpt2_like(model_type: str, title: str, attention: str, **settings: object) -> Architecture:
    return Architecture(
        model_type=model_type,
        title=title,
        layers="transformer.h",
        attention=attention,
        final_norm="transformer.ln_f",
        **settings,  # type: ignore[arg-type]
    )


def _llama_like(model_type: str, title: str, **settings: object) -> Architecture:
    return Architecture(model_type=model_type, title=title, layers="model.layers", attention="self_attn", **settings)  # type: ignore[arg-type]


_FUSED_QKV = ("query_key_value",) * 3

ARCHITECTURES: dict[str, Architecture] = {
    row.model_type: row
    for row in (
        _gpt2_like(
            "gpt2",
            "GPT-2",
            "attn",
            projections=("c_attn",) * 3,
            fused="blocks",
            output="c_proj",
            first_mlp=("mlp.c_fc",),
            absolute_positions=True,
            remark="fused qkv",
        ),
        Architecture(
            model_type="gpt_neox",
            title="GPT-NeoX, Pythia",
            layers="gpt_neox.layers",
            attention="attention",
            projections=_FUSED_QKV,
            fused="per_head",
            output="dense",
            first_mlp=("mlp.dense_h_to_4h",),
            final_norm="gpt_neox.final_layer_norm",
            remark="fused qkv, interleaved per head",
        ),
        Architecture(
            model_type="opt",
            title="OPT",
            layers="model.decoder.layers",
            attention="self_attn",
            output="out_proj",
            first_mlp=("fc1",),
            final_norm="model.decoder.final_layer_norm",
            absolute_positions=True,
        ),
        _llama_like("llama", "Llama", remark="grouped-query"),
        _llama_like("mistral", "Mistral", remark="grouped-query, sliding window"),
        _llama_like("qwen2", "Qwen2", remark="grouped-query, biases"),
        _llama_like(
            "qwen3", "Qwen3", query_norm=("q_norm", "tokens_first"), remark="grouped-query, query and key norm"
        ),
        _llama_like("gemma2", "Gemma 2", remark="soft cap, alternating sliding window, pre and post norm"),
        _llama_like(
            "gemma3_text",
            "Gemma 3 (text)",
            query_norm=("q_norm", "heads_first"),
            remark="query and key norm, alternating sliding window, pre and post norm",
        ),
        _llama_like(
            "phi3",
            "Phi-3",
            projections=("qkv_proj",) * 3,
            fused="blocks",
            first_mlp=("mlp.gate_up_proj",),
            remark="fused qkv",
        ),
        _llama_like(
            "phi",
            "Phi",
            output="dense",
            first_mlp=("mlp.fc1",),
            final_norm="model.final_layernorm",
            remark="partial rotary, parallel block",
        ),
        _llama_like("olmo2", "OLMo 2", query_norm=("q_norm", "flat"), remark="query and key norm, post norm"),
        _llama_like("smollm3", "SmolLM3", remark="grouped-query, layers without positions"),
        _llama_like("stablelm", "StableLM", remark="partial rotary"),
        _llama_like("granite", "Granite", remark="own attention and logit scales"),
        _llama_like("cohere2", "Cohere 2", remark="sliding window, parallel block, logit scale"),
        _llama_like(
            "xglm",
            "XGLM, fairseq dense",
            output="out_proj",
            first_mlp=("fc1",),
            final_norm="model.layer_norm",
            adapter=True,
            absolute_positions=True,
            remark="the paper's models",
        ),
        _gpt2_like(
            "gpt_neo",
            "GPT-Neo",
            "attn.attention",
            output="out_proj",
            first_mlp=("mlp.c_fc",),
            adapter=True,
            absolute_positions=True,
            remark="alternating local window",
        ),
        _gpt2_like(
            "gptj",
            "GPT-J",
            "attn",
            output="out_proj",
            first_mlp=("mlp.fc_in",),
            adapter=True,
            remark="partial rotary, parallel block",
        ),
        _gpt2_like(
            "bloom",
            "BLOOM",
            "self_attention",
            projections=_FUSED_QKV,
            fused="per_head",
            output="dense",
            first_mlp=("mlp.dense_h_to_4h",),
            adapter=True,
            takes_positions=False,
            alibi=True,
            remark="ALiBi, fused qkv interleaved per head",
        ),
        _gpt2_like(
            "falcon",
            "Falcon",
            "self_attention",
            projections=_FUSED_QKV,
            fused="per_head",
            output="dense",
            first_mlp=("mlp.dense_h_to_4h",),
            adapter=True,
            remark="multi-query, grouped or ALiBi; fused qkv",
        ),
    )
}

REFUSED: dict[str, str] = {
    **dict.fromkeys(("t5", "bart", "mbart", "pegasus", "m2m_100", "marian"), "it is an encoder-decoder"),
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"), "it has no attention"),
    **dict.fromkeys(
        (
            "jamba",
            "bamba",
            "zamba",
            "zamba2",
            "recurrent_gemma",
            "lfm2",
            "falcon_h1",
            "qwen3_next",
            "granitemoehybrid",
            "nemotron_h",
        ),
        "it mixes attention with state-space or convolution layers, whose state a shared prefix cannot carry",
    ),
    **dict.fromkeys(
        ("deepseek_v2", "deepseek_v3", "minicpm3", "kimi_linear", "glm4_moe_lite"),
        "its keys and values are latent: there is no key/value projection to fine-tune",
    ),
    **dict.fromkeys(("gpt_oss",), "its attention sinks take part of the softmax"),
    **dict.fromkeys(("gemma3n_text", "gemma4_text"), "some of its layers share the keys and values of others"),
}


def architecture_of(config: "PretrainedConfig") -> Architecture:
    """The table's row for a configuration.

    Raises:
        ModelError: the model cannot be probed rightly, with the reason.
    """
    # Refusals come first, so that a model gets its own reason and not "unknown".
    model_type = str(config.model_type)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"Models of type {model_type!r} cannot be probed: it is an encoder-decoder.")
    if model_type in REFUSED:
        raise ModelError(f"Models of type {model_type!r} cannot be probed: {REFUSED[model_type]}.")
    if model_type not in ARCHITECTURES:
        raise ModelError(
            f"Models of type {model_type!r} are not in the table of tested architectures, and an untested one could "
            f"be measured wrongly without a sign. {did_you_mean(model_type, ARCHITECTURES)}"
        )
    _refuse_options(config)
    return ARCHITECTURES[model_type]


def _refuse_options(config: "PretrainedConfig") -> None:
    """Options of a supported family that change what its modules mean."""
    checks: Sequence[tuple[str, bool, str]] = (
        (
            "qk_layernorm",
            bool(getattr(config, "qk_layernorm", False)),
            "normalises queries and keys in a way this program has not been tested with",
        ),
        (
            "slow_but_exact",
            bool(getattr(config, "slow_but_exact", False)) and getattr(config, "pretraining_tp", 1) > 1,
            "with pretraining_tp > 1 bypasses the output projection",
        ),
        ("add_cross_attention", bool(getattr(config, "add_cross_attention", False)), "adds an encoder's tokens"),
        (
            "use_bidirectional_attention",
            bool(getattr(config, "use_bidirectional_attention", False)),
            "makes attention see later tokens",
        ),
    )
    for option, present, reason in checks:
        if present:
            raise ModelError(
                f"This {config.model_type} model sets `{option}`, which {reason}: it cannot be probed. "
                "Choose a model without it."
            )


def head_counts(config: "PretrainedConfig") -> tuple[int, int, int]:
    """Query heads, key/value heads and head width.

    Falcon's configuration says its key/value heads in its own way; every other family uses the common names.
    """
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    if config.model_type == "falcon":
        grouped = config.new_decoder_architecture
        kv_heads = int(config.num_kv_heads) if grouped or not config.multi_query else 1
    # Some families have heads wider or narrower than hidden size divided by heads.
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return heads, kv_heads, width


def has_alibi(config: "PretrainedConfig") -> bool:
    """Whether positions are a bias on scores (ALiBi)."""
    # Refused families have no row, and are asked too, for a message.
    row = ARCHITECTURES.get(config.model_type)
    return bool(getattr(config, "alibi", False)) or (row is not None and row.alibi)


def has_soft_cap(config: "PretrainedConfig") -> bool:
    """Whether attention scores are capped before softmax."""
    return bool(getattr(config, "attn_logit_softcapping", None))


def attention_windows(config: "PretrainedConfig") -> list[int | None]:
    """How many tokens, itself among them, a token of each layer sees; None where it sees all before it."""
    # Three spellings: a list of kinds per layer (GPT-Neo, Gemma), or one window for all (Mistral).
    kinds = getattr(config, "attention_layers", None) or getattr(config, "layer_types", None)
    window = getattr(config, "window_size" if hasattr(config, "attention_layers") else "sliding_window", None)
    if window is None or kinds is None:
        return [window] * int(config.num_hidden_layers)
    return [int(window) if kind in ("local", "sliding_attention") else None for kind in kinds]


def scales_logits(config: "PretrainedConfig") -> bool:
    """Whether logits are scaled or capped behind the unembedding."""
    names = ("logits_scaling", "logit_scale", "final_logit_softcapping")
    return any(getattr(config, name, None) for name in names)


def context_length(config: "PretrainedConfig") -> int | None:
    """How many positions the model has; None where its positions have no end (ALiBi)."""
    # ALiBi models were trained at some length but compute at any.
    length = None if has_alibi(config) else getattr(config, "max_position_embeddings", None)
    return None if length is None else int(length)


def fused_layout(config: "PretrainedConfig") -> FusedLayout | None:
    """Layout of the fused projection; Falcon has all three, by configuration."""
    if config.model_type != "falcon":
        return ARCHITECTURES[config.model_type].fused
    if config.new_decoder_architecture:
        return "grouped"
    return "blocks" if config.multi_query else "per_head"


def fused_rows(config: "PretrainedConfig") -> tuple[list[int], list[int]]:
    """Output rows of a fused projection that make the query (heads in order), and those that make key and value."""
    heads, kv_heads, width = head_counts(config)
    layout = fused_layout(config)
    if layout == "blocks":
        queries = heads * width
        return list(range(queries)), list(range(queries, queries + 2 * kv_heads * width))
    # A group: its query heads, one key head, one value head. "per_head" is the case of one query head per group.
    group_size = heads // kv_heads
    group = (group_size + 2) * width
    query_rows: list[int] = []
    kv_rows: list[int] = []
    for kv_head in range(kv_heads):
        start = kv_head * group
        query_rows += range(start, start + group_size * width)
        kv_rows += range(start + group_size * width, start + group)
    return query_rows, kv_rows
