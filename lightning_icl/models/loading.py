"""Loading the model under study: configuration and tokenizer first, which are cheap, then weights.

Every check that needs no weights runs on the first two.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import ModelError, did_you_mean
from lightning_icl.models.checkpoint import INDEX, check_tokenizer, indexed_files, weight_files
from lightning_icl.models.finding import BUILTIN, ModelSource
from lightning_icl.models.fitting import Misfit, check_fit, silent
from lightning_icl.models.spreading import check_spread

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_config(source: ModelSource) -> "PretrainedConfig":
    """The model's configuration.

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.location, trust_remote_code=source.trust_remote_code)
    except Exception as error:  # configurations fail in as many ways as there are models
        raise _not_loaded(source, error) from error
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        raise ModelError(
            f"The model {source.name!r} is quantised: its configuration has a `quantization_config`. Fine-tuning needs "
            "weights in floating point: give the model it was made from."
        )
    config.return_dict = True  # outputs are read by name, whatever the file asks for
    return config


def check_weights(source: ModelSource, config: "PretrainedConfig") -> None:
    """Whether a model can be built from its configuration and its weights, as far as headers tell.

    Weights on the hub and pickled ones are checked when they are loaded.

    Args:
        source: where the model comes from.
        config: its configuration, of a supported architecture.

    Raises:
        ModelError: weights are missing, left over, of another shape or quantised, or the configuration is unsound.
    """
    if source.local and not source.fresh:
        files = weight_files(Path(source.location), allow_pickle=source.allow_pickle)
        if files:
            check_fit(source.name, config, files)


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """The model's tokenizer.

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import AutoTokenizer
    from transformers.tokenization_utils_base import LARGE_INTEGER

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, trust_remote_code=source.trust_remote_code)
    except Exception as error:  # tokenizer files fail in many ways of their own
        if source.local:
            check_tokenizer(Path(source.location))
        raise _not_loaded(source, error) from error
    tokenizer.model_max_length = LARGE_INTEGER  # lengths are checked here, against the model's positions
    return tokenizer


def load_model(
    source: ModelSource, dtype: "torch.dtype | None" = None, seed: int = 0, device_map: str | None = None
) -> "PreTrainedModel":
    """The model in eval mode, its weights read once, in the type asked for.

    Args:
        source: where it comes from.
        dtype: type of the weights; float32 without.
        seed: seed of fresh weights.
        device_map: "auto" to spread its layers over the GPUs of this machine; None for one device.

    Raises:
        ModelError: it cannot be found or read safely, or does not fit the GPUs it was to be spread over.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from lightning_icl.models.momentum.registration import enable_momentum

    enable_momentum()
    dtype = dtype or torch.float32
    config = load_config(source)
    _check_hub_index(source, config)
    if source.fresh:
        return _fresh(source, config, dtype, seed)
    loader: Any = AutoModelForCausalLM
    try:
        with silent():
            model, report = loader.from_pretrained(
                source.location,
                config=config,
                dtype=dtype,
                use_safetensors=None if source.allow_pickle else True,
                trust_remote_code=source.trust_remote_code,
                device_map=device_map,
                ignore_mismatched_sizes=True,  # named below, in place of an error without their names
                output_loading_info=True,
            )
    except Exception as error:  # so do weights
        raise _not_loaded(source, error) from error
    Misfit.of(report).refuse(source.name)
    check_spread(model)
    _check_finite(source, model)
    return model.eval()


def _check_finite(source: ModelSource, model: "PreTrainedModel") -> None:
    import torch

    for name, parameter in model.named_parameters():
        if not bool(parameter.detach().sum(dtype=torch.float32).isfinite()):
            raise ModelError(f"The weights of the model {source.name!r} hold NaN or infinite numbers, in {name!r}.")


def _check_hub_index(source: ModelSource, config: "PretrainedConfig") -> None:
    """An index on the hub must name safetensors files only, as one in a folder must."""
    from transformers.utils.hub import cached_file

    if source.local or source.fresh:
        return
    name = getattr(config, "transformers_weights", None) or INDEX
    index = cached_file(
        source.location,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if index is not None and name.endswith(".index.json"):
        indexed_files(Path(index))


def _fresh(source: ModelSource, config: "PretrainedConfig", dtype: "torch.dtype", seed: int) -> "PreTrainedModel":
    """The same shape with weights of its own."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=source.trust_remote_code)
        except Exception as error:
            raise _not_loaded(source, error) from error
    return model.eval()


def _not_loaded(source: ModelSource, error: Exception) -> ModelError:
    """What to do when transformers could not read a model."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if source.local:
        return ModelError(f"The model in {source.location!r} cannot be read: {reason}")
    if "trust_remote_code" in str(error):
        return ModelError(f"The model {source.name!r} brings its own code. Pass --trust-remote-code if you trust it.")
    if "safetensors" in str(error):
        return ModelError(
            f"The model {source.name!r} has no safetensors weights. Pass --allow-pickle if you trust its author: "
            "pickle files can run code when read."
        )
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    hint = did_you_mean(source.name, [*BUILTIN, "random:NAME", "a folder", "a hub name"])
    return ModelError(
        f"The model {source.name!r} cannot be loaded from the Hugging Face hub{offline}: {reason} Check the name and "
        f"the network, or download the model where there is one and give its folder. {hint}"
    )
