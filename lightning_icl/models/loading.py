"""Loading the model under study: configuration and tokenizer first, which are cheap, then weights.

Every check that needs no weights runs on the first two.
"""

import os
from typing import TYPE_CHECKING

from lightning_icl.errors import ModelError, did_you_mean
from lightning_icl.models.finding import BUILTIN, ModelSource
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
        return AutoConfig.from_pretrained(source.location, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(source, error) from error


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """The model's tokenizer.

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.location, trust_remote_code=source.trust_remote_code)
    except Exception as error:  # tokenizer files fail in many ways of their own
        raise _not_loaded(source, error) from error


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
    if source.fresh:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(
                load_config(source), dtype=dtype, trust_remote_code=source.trust_remote_code
            )
        return model.eval()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.location,
            dtype=dtype,
            use_safetensors=None if source.allow_pickle else True,
            trust_remote_code=source.trust_remote_code,
            device_map=device_map,
        ).eval()
        check_spread(model)
        return model
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(source, error) from error


def _not_loaded(source: ModelSource, error: Exception) -> ModelError:
    """What to do when transformers could not read a model."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
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
