"""Tiny real models with random weights: every supported architecture, and every variant that takes another path."""

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from lightning_icl.models.momentum.registration import enable_momentum

enable_momentum()
VOCABULARY = 97

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {"num_key_value_heads": 2}

# Windows are shorter than the prefix of the tests, so that they cut it.
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "gpt2": ("gpt2", {"n_inner": 48}),
    "gpt_neox": ("gpt_neox", {}),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "llama": ("llama", _GROUPED),
    "mistral": ("mistral", _GROUPED),
    "mistral-window": ("mistral", {**_GROUPED, "sliding_window": 20}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 16}),
    "gemma2": ("gemma2", {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 20}),
    "gemma3_text": ("gemma3_text", {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 20}),
    "phi3": ("phi3", _GROUPED),
    "phi": ("phi", {}),
    "olmo2": ("olmo2", {}),
    "smollm3": ("smollm3", {**_GROUPED, "no_rope_layers": [1, 0, 1]}),
    "stablelm": ("stablelm", {"num_key_value_heads": 4}),
    "granite": ("granite", {**_GROUPED, "attention_multiplier": 0.3, "logits_scaling": 2.0}),
    "cohere2": ("cohere2", {**_GROUPED, "sliding_window": 20}),
    "xglm": ("xglm", {"d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4}),
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 3, "num_heads": 4, "attention_types": [[["global", "local", "global"], 1]], "window_size": 20},
    ),
    "gptj": ("gptj", {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4, "n_positions": 256}),
    "bloom": ("bloom", {}),
    "falcon-grouped": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-multiquery": ("falcon", {"multi_query": True}),
    "llama-momentum": ("llama", {**_GROUPED, "momentum_attention": {"eta": [0.5, 0.9, 0.8]}}),
    "gpt2-momentum": ("gpt2", {"n_inner": 48, "momentum_attention": {"eta": 0.7, "learn": True}}),
    "llama-momentum-mean": (
        "llama",
        {**_GROUPED, "momentum_attention": {"eta": 0.8, "learn": True, "form": "mean", "gate_init": 0.5}},
    ),
    "mistral-window-momentum": ("mistral", {**_GROUPED, "sliding_window": 20, "momentum_attention": {"eta": 0.9}}),
    "falcon-alibi": ("falcon", {"multi_query": False, "alibi": True, "bias": True, "parallel_attn": False}),
}


def tiny_model(variant: str, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> PreTrainedModel:
    """A model of three layers, its weights large enough for attention to matter, eager attention underneath.

    `changes` are settings of its configuration beside the variant's.
    """
    model_type, settings = VARIANTS[variant]
    settings = {**settings, **changes}
    common = {} if model_type in ("xglm", "gpt_neo", "gptj") else dict(_COMMON)
    if not common:
        names = ("vocab_size", "max_position_embeddings", "hidden_size", "bos_token_id", "eos_token_id", "pad_token_id")
        common = {name: _COMMON[name] for name in names if not (model_type != "gpt_neo" and name == "hidden_size")}
        if model_type == "gptj":
            common.pop("max_position_embeddings")
    config = CONFIG_MAPPING[model_type](**{**common, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=dtype).eval()
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, 0.0, 0.15)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, 0.0, 0.05)
            elif name.endswith(("momentum_logit", "momentum_gate")):
                torch.nn.init.normal_(parameter, 1.0, 0.5)
    return model
