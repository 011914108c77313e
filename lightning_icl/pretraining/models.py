"""The model to train, saved when it is done: a Llama shape by the settings, any configuration, or an existing model.

Plain and momentum models of one seed, or of one existing model, begin with the same weights.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_icl.errors import ModelError, NumericalError
from lightning_icl.models.architecture import context_length
from lightning_icl.models.finding import ModelSource, find_model
from lightning_icl.models.hub import check_on_hub
from lightning_icl.models.loading import load_config, load_model
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.saving.record import digest

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def new_model(settings: PretrainSettings, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """A model with the weights it begins with, float32, in training mode.

    Raises:
        ModelError: the model or configuration asked for cannot be read, or has fewer positions than a block has tokens.
    """
    from lightning_icl.attention.ema import DEFAULT_ETA
    from lightning_icl.models.momentum.conversion import to_momentum
    from lightning_icl.models.momentum.settings import GATE, PARAMETER

    source, config = model_source(settings), check_model(settings)
    if source is None or config is None:
        model: PreTrainedModel = _llama(settings, tokenizer)
    else:
        # `fresh` means the configuration alone: its weights are random.
        model = _of_configuration(config, tokenizer) if source.fresh else load_model(source)
    if settings.has_momentum:
        to_momentum(
            model,
            eta=DEFAULT_ETA if settings.momentum is None else settings.momentum,
            learn=settings.learn_momentum,
            form=settings.momentum_form,
            gate_init=settings.gate_init,
        )
    if settings.only_momentum:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith((PARAMETER, GATE)))
    return model.train()


def check_model(settings: PretrainSettings) -> "PretrainedConfig | None":
    """The configuration that the settings name; None where they describe a Llama shape themselves.

    Raises:
        ModelError: it cannot be found, has fewer positions than a block has tokens, or cannot have momentum.
    """
    from lightning_icl.models.momentum.settings import check_wrappable

    source = model_source(settings)
    if source is None:
        return None
    config = load_config(source)
    length = context_length(config)
    # Positions of a configuration are a promise to every later use of the model.
    if length is not None and length < settings.block:
        raise ModelError(f"block = {settings.block}: the model {source.name!r} has {length} positions only.")
    if settings.has_momentum:
        check_wrappable(config)
    return config


def check_names(settings: PretrainSettings) -> None:
    """Refuse the name of a model that is nowhere, before anything heavy is imported.

    Raises:
        ModelError: `init` or `model` names nothing.
    """
    source = model_source(settings)
    if source is not None:
        check_on_hub(source)


def model_source(settings: PretrainSettings) -> ModelSource | None:
    """Where weights or configuration come from; None where the settings describe a Llama shape themselves.

    Raises:
        ModelError: they name nothing, or weights that cannot be read safely.
    """
    if settings.init is not None:
        if settings.init.startswith("random:"):
            raise ModelError(f"init = {settings.init!r} has no weights to begin with. Give it as model instead.")
        return find_model(
            settings.init, trust_remote_code=settings.trust_remote_code, allow_pickle=settings.allow_pickle
        )
    if settings.model is not None:
        return find_model(f"random:{settings.model.removeprefix('random:')}")
    return None


def init_record(settings: PretrainSettings) -> list[str]:
    """Configuration, vocabulary and weights of `init` by digest, to notice when they change; a hub model has none."""
    source = model_source(settings)
    if source is None or source.fresh or not source.local:
        return []
    # A GGUF file holds everything; otherwise these patterns name what the model is made of.
    kinds = ("config.json", "tokenizer.json", "*.safetensors", "*.bin") if source.gguf is None else (source.gguf,)
    files = [path for kind in kinds for path in sorted(Path(source.location).glob(kind))]
    return [f"{path.name} (SHA-256 {digest(path)[:16]})" for path in files]


def _of_configuration(config: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Any architecture: its configuration with the tokenizer's vocabulary and special tokens."""
    from transformers import AutoModelForCausalLM

    from lightning_icl.models.momentum.registration import enable_momentum

    enable_momentum()
    # Sized by the tokenizer, so that no row of the embedding stands for nothing.
    config.vocab_size = len(tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    return AutoModelForCausalLM.from_config(config)


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
        # The usual SwiGLU ratio of 8/3, rounded to what matrix products like.
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
        # Both start as copies: attention then looks for what is alike and gives it back.
        for block in model.model.layers:
            block.self_attn.k_proj.weight.copy_(block.self_attn.q_proj.weight)
            block.self_attn.o_proj.weight.copy_(block.self_attn.v_proj.weight.T)
    return model


def save_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Write model and tokenizer into a folder.

    Raises:
        NumericalError: a weight is NaN or infinite.
    """
    import torch
    from safetensors import SafetensorError

    for name, parameter in model.named_parameters():
        # After training and not during it: a NaN weight trains on without a word.
        if not bool(torch.isfinite(parameter).all()):
            raise NumericalError(
                f"The weight {name} is NaN or infinite after training, so no model was saved. Lower learning_rate, "
                "raise warmup, or use precision 32-true."
            )
    try:
        model.save_pretrained(folder, safe_serialization=True)
    except SafetensorError as error:  # raised for a full disk too
        raise OSError(str(error)) from error
    tokenizer.save_pretrained(folder)
