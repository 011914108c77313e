"""A tiny Llama as a GGUF file, written by the gguf package: no network, no weights of anybody."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quantize
from tiny_models import tiny_model
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedModel

from lightning_icl.models.architecture import head_counts

WORDS = ["<unk>", "<s>", "</s>", *sorted(ByteLevel.alphabet()), "w3"]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_model() -> PreTrainedModel:
    """A model whose vocabulary is that of the file."""
    return tiny_model("llama", vocab_size=len(WORDS), max_position_embeddings=1024, intermediate_size=64)


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    architecture: str = "llama",
) -> Path:
    """Write a Llama with a tokenizer of single bytes.

    Args:
        path: where to.
        model: the model.
        kind: how matrices are stored.
        architecture: what the file calls the model.
    """
    writer, config = GGUFWriter(path, architecture), model.config
    heads, kv_heads, width = head_counts(config)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types(
        [TokenType.CONTROL if word.startswith("<") and len(word) > 1 else TokenType.NORMAL for word in WORDS]
    )
    writer.add_token_merges(["w 3"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, parameter in model.state_dict().items():
        tensor = parameter.float()
        for projection, count in (("q_proj", heads), ("k_proj", kv_heads)):
            if projection in name:
                tensor = _interleaved(tensor, count)
        data = tensor.numpy()
        if tensor.dim() > 1 and kind != GGMLQuantizationType.F32:
            writer.add_tensor(_gguf_name(name), quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(_gguf_name(name), np.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows in the order of llama.cpp, which turns neighbours where transformers turns halves."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def _gguf_name(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, number, rest = stem.split(".", 3)
        return f"blk.{number}.{NAMES[rest]}.{suffix}"
    return f"{NAMES[stem]}.{suffix}"
