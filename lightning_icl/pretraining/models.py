"""The model to train: a Llama shape by the settings, or any configuration, with fresh weights; saved when it is done.

Plain and momentum models of one seed begin with the same weights.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_icl.errors import ModelError
from lightning_icl.models.loading import context_length, find_model, load_config
from lightning_icl.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def new_model(settings: PretrainSettings, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """A model with fresh weights, in training mode.

    Raises:
        ModelError: the configuration asked for cannot be found, or has fewer positions than a block has tokens.
    """
    from lightning_icl.models.momentum import to_momentum

    model = _llama(settings, tokenizer) if settings.model is None else _of_configuration(settings, tokenizer)
    return (
        model if settings.momentum is None else to_momentum(model, eta=settings.momentum, learn=settings.learn_momentum)
    )


def check_model(settings: PretrainSettings) -> "PretrainedConfig | None":
    """The configuration that the settings name, None where they describe a Llama shape themselves.

    Raises:
        ModelError: it cannot be found, has fewer positions than a block has tokens, or cannot have momentum.
    """
    from lightning_icl.models.momentum import check_wrappable

    if settings.model is None:
        return None
    config = load_config(find_model(f"random:{settings.model.removeprefix('random:')}"))
    length = context_length(config)
    if length is not None and length < settings.block:
        raise ModelError(f"block = {settings.block}: the model {settings.model!r} has {length} positions only.")
    if settings.momentum is not None:
        check_wrappable(config)
    return config


def _of_configuration(settings: PretrainSettings, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Any architecture: its configuration with the tokenizer's vocabulary and special tokens."""
    from transformers import AutoModelForCausalLM

    config = check_model(settings)
    assert config is not None
    config.vocab_size = len(tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    return AutoModelForCausalLM.from_config(config).train()


def _llama(settings: PretrainSettings, tokenizer: "PreTrainedTokenizerBase") -> "LlamaForCausalLM":
    """A Llama-shaped model with tied embeddings, ready to look for what is alike and to copy it.

    Keys start equal to queries and outputs undo values (Trockman and Kolter 2023, arXiv 2305.09828), which small models
    find by themselves only after long.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=max(64, 4 * settings.width * 2 // 3 // 64 * 64),
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        initializer_range=settings.width**-0.5,  # the common 0.02 is for widths of thousands and learns slowly here
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.k_proj.weight.copy_(block.self_attn.q_proj.weight)
            block.self_attn.o_proj.weight.copy_(block.self_attn.v_proj.weight.T)
    return model


def save_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", out: Path) -> None:
    """Write model and tokenizer beside the folder, then move each file into it: never half a model."""
    part = out.parent / f"{out.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part, safe_serialization=True)
    tokenizer.save_pretrained(part)
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(part.iterdir(), key=lambda file: file.suffix == ".safetensors"):
        os.replace(file, out / file.name)
    part.rmdir()
