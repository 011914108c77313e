"""Loading the model under study: configuration and tokenizer first, which are cheap, then weights.

Every check that needs no weights runs on the first two.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import ModelError
from lightning_icl.models._checkpoint import INDEX, SINGLE, check_tokenizer, indexed_files, weight_files
from lightning_icl.models._gguf import as_plain, check_vocabulary, check_whole, forget, read_once
from lightning_icl.models._peft_adapter import check_adapter_fits, merge_adapter
from lightning_icl.models.finding import ModelSource, find_model
from lightning_icl.models.fitting import Misfit, check_fit, silent
from lightning_icl.models.hub import hint
from lightning_icl.models.packaged import PACKAGED
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

    if source.gguf is not None:
        check_whole(_gguf_path(source))
    try:
        with _reading(source):
            config = AutoConfig.from_pretrained(source.location, **_options(source))
    except Exception as error:  # configurations fail in as many ways as there are models
        raise _not_loaded(source, error) from error
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        raise ModelError(
            f"The model {source.name!r} is quantised: its configuration has a `quantization_config`. Fine-tuning needs "
            "weights in floating point: give the model it was made from."
        )
    config.return_dict = True  # outputs are read by name here, whatever the file says
    return config


def check_weights(source: ModelSource, config: "PretrainedConfig") -> None:
    """Whether a model can be built from its configuration and its weights, as far as headers tell.

    Of weights on the hub the names are checked; they and pickled ones are looked into when they are loaded.

    Args:
        source: where the model comes from.
        config: its configuration, of a supported architecture.

    Raises:
        ModelError: weights are missing, left over, of another shape or quantised, or the configuration is unsound.
    """
    if source.local and not source.fresh and source.gguf is None:
        files = weight_files(Path(source.location), allow_pickle=source.allow_pickle)
        if files:
            check_fit(source.name, config, files)
    _check_hub_files(source, config)
    if source.adapter is not None:
        title = PACKAGED[source.name].title if source.name in PACKAGED else source.name
        # A packaged or GGUF model is known by its title: its file name says nothing of the adapter's base.
        names = {Path(name).name.casefold() for name in (title, source.location if source.gguf is None else title)}
        check_adapter_fits(source.adapter, frozenset(names), config)


def _options(source: ModelSource) -> dict[str, Any]:
    """Arguments of every `from_pretrained`."""
    chosen = {"revision": source.revision, "gguf_file": source.gguf}
    present = {name: value for name, value in chosen.items() if value is not None}
    return {"trust_remote_code": source.trust_remote_code, **present}


def _reading(source: ModelSource) -> AbstractContextManager[None]:
    return nullcontext() if source.gguf is None else read_once()


def _gguf_path(source: ModelSource) -> Path:
    assert source.gguf is not None
    # Files on the hub are downloaded by now, since the configuration is inside them.
    return Path(source.location) / source.gguf if source.local else _from_hub(source, source.gguf)


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """The model's tokenizer.

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import AutoTokenizer
    from transformers.tokenization_utils_base import LARGE_INTEGER

    try:
        with _reading(source):
            tokenizer = AutoTokenizer.from_pretrained(source.location, **_options(source))
    except Exception as error:  # tokenizer files fail in many ways of their own
        # Our message, if it finds a reason, is clearer than that of transformers.
        if source.local and source.gguf is None:
            check_tokenizer(Path(source.location))
        raise _not_loaded(source, error) from error
    if source.gguf is not None:
        check_vocabulary(_gguf_path(source), tokenizer)
    # Otherwise tokenizers warn at every long text.
    tokenizer.model_max_length = LARGE_INTEGER  # lengths are checked here, against the model's positions
    return tokenizer


def tokenizer_of(model: "PreTrainedModel") -> "PreTrainedTokenizerBase":
    """The tokenizer from where a model object was loaded.

    Raises:
        ModelError: the model does not say where, or there is none.
    """
    name = str(getattr(model, "name_or_path", "") or "")
    if not name:
        raise ModelError(
            f"This {type(model).__name__} does not say where it was loaded from (`name_or_path` is empty). Give its "
            "tokenizer as well: tokenizer=…"
        )
    return load_tokenizer(find_model(name, allow_pickle=True))  # no weights are read


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

    # Before `from_pretrained`, which would refuse the attention implementation of a momentum model.
    enable_momentum()
    dtype = dtype or torch.float32
    # Read again and not passed in: a configuration changes while a model is built from it.
    config = load_config(source)
    _check_hub_files(source, config)
    if source.fresh:
        return _named(_fresh(source, config, dtype, seed), source)
    loader: Any = AutoModelForCausalLM
    try:
        with silent(), _reading(source):
            model, report = loader.from_pretrained(
                source.location,
                config=config,
                dtype=dtype,
                # None lets transformers take pickle files where there are no safetensors; True never does.
                use_safetensors=None if source.allow_pickle else True,
                device_map=device_map,
                ignore_mismatched_sizes=True,  # named below, in place of an error without their names
                output_loading_info=True,
                **_options(source),
            )
    except Exception as error:  # weights fail in many ways too
        raise _not_loaded(source, error) from error
    # Checked again: pickled and hub weights could not be rehearsed from headers.
    Misfit.of(report).refuse(source.name)
    check_spread(model)
    _check_finite(source, model)
    if source.gguf is not None:
        as_plain(model)
        # The reader maps the whole file; nothing needs it any more.
        forget()
    # After the checks, which name the weights as they are in the file.
    merged = model if source.adapter is None else merge_adapter(model, source.adapter)
    return _named(merged.eval(), source)


def _named(model: "PreTrainedModel", source: ModelSource) -> "PreTrainedModel":
    """The model with the name that it was found by, by which its tokenizer and its learning rates are found too."""
    model.name_or_path = source.name
    return model


def _check_finite(source: ModelSource, model: "PreTrainedModel") -> None:
    import torch

    for name, parameter in model.named_parameters():
        # A sum is finite only if all entries are, and needs no mask as large as the parameter.
        if not bool(parameter.detach().sum(dtype=torch.float32).isfinite()):
            raise ModelError(f"The weights of the model {source.name!r} hold NaN or infinite numbers, in {name!r}.")


def _check_hub_files(source: ModelSource, config: "PretrainedConfig") -> None:
    """Weights on the hub must be safetensors, one file or those that an index names, as those in a folder must."""
    if source.local or source.fresh or source.gguf is not None:
        return
    names = (getattr(config, "transformers_weights", None), SINGLE, INDEX)
    # In the order in which transformers would look.
    safe = [name for name in names if name is not None and _on_hub(source, name)]
    if not safe and not source.allow_pickle:
        raise ModelError(
            f"The model {source.name!r} has no safetensors weights on the hub ({SINGLE} or {INDEX}). Pass "
            "--allow-pickle if you trust its author: pickle files can run code when read."
        )
    if safe and safe[0].endswith(".index.json"):
        indexed_files(_from_hub(source, safe[0]))


def _on_hub(source: ModelSource, name: str) -> bool:
    from transformers.utils.hub import has_file

    try:
        return bool(has_file(source.location, name, revision=source.revision))
    except OSError as error:
        raise _not_loaded(source, error) from error


def _from_hub(source: ModelSource, name: str) -> Path:
    """A file of the model's repository, downloaded if need be."""
    from transformers.utils.hub import cached_file

    try:
        return Path(str(cached_file(source.location, name, revision=source.revision)))
    except OSError as error:
        raise _not_loaded(source, error) from error


def _fresh(source: ModelSource, config: "PretrainedConfig", dtype: "torch.dtype", seed: int) -> "PreTrainedModel":
    """A model of the same configuration with random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    # The user's own random state stays as it was.
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
        place = f"in {source.location!r}" if source.gguf is None else repr(source.name)
        return ModelError(f"The model {place} cannot be read: {reason}")
    if "trust_remote_code" in str(error):
        return ModelError(f"The model {source.name!r} brings its own code. Pass --trust-remote-code if you trust it.")
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return ModelError(
        f"The model {source.name!r} cannot be loaded from the Hugging Face hub{offline}: {reason} Check the name and "
        f"the network, or download the model where there is one and give its folder. {hint(source)}"
    )
