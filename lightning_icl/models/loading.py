"""Finding and loading the model under study: a hub name, a folder, a built-in one, or `random:` for fresh weights.

Configuration and tokenizer load first and are cheap; every check that needs no weights runs on them.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_icl.errors import ModelError, did_you_mean
from lightning_icl.models.spreading import check_spread

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BUILTIN = {"builtin": "icl-tiny", "builtin-momentum": "icl-tiny-momentum"}


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from, and what the user allows it to do."""

    name: str
    """As the user wrote it."""
    location: str
    """A folder, or a name on the hub."""
    fresh: bool = False
    """Fresh weights of the same configuration."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""
    allow_pickle: bool = False
    """Whether weights may be read from pickle files where there are no safetensors."""

    @property
    def local(self) -> bool:
        """Whether it is a folder on this machine."""
        return Path(self.location).is_dir()


def builtin_folder(name: str) -> Path:
    """The folder of a built-in model: inside the installed package, or in the checkout beside it.

    Raises:
        ModelError: the installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    for parent in (package / "checkpoints", package.parent / "checkpoints"):
        if (parent / BUILTIN[name] / "config.json").is_file():
            return parent / BUILTIN[name]
    raise ModelError(f"The built-in model {name!r} is not part of this installation. Install lightning-icl again.")


def find_model(name: str, *, trust_remote_code: bool = False, allow_pickle: bool = False) -> ModelSource:
    """What a model name means.

    Raises:
        ModelError: it names nothing, or a folder that holds no model or no safe weights.
    """
    wanted, fresh = name, False
    if name.startswith("random:"):
        wanted, fresh = name.removeprefix("random:"), True
    if not wanted:
        raise ModelError(f"{name!r} names no model. Give a hub name, a folder, `builtin` or `random:NAME`.")
    location = str(builtin_folder(wanted)) if wanted in BUILTIN else wanted
    path = Path(location).expanduser()
    if path.is_dir():
        _check_folder(path, fresh, allow_pickle)
        location = str(path)
    elif path.exists():
        raise ModelError(f"The model {name!r} is a file. Give the folder that holds config.json and the weights.")
    elif wanted.startswith((".", "/", "~")) or wanted.count("/") > 1 or "\\" in wanted:
        raise ModelError(f"The model folder {wanted!r} does not exist.")
    return ModelSource(
        name=name, location=location, fresh=fresh, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle
    )


def _check_folder(path: Path, fresh: bool, allow_pickle: bool) -> None:
    if not (path / "config.json").is_file():
        raise ModelError(f"The folder {str(path)!r} holds no model: config.json is missing.")
    if fresh or any(path.glob("*.safetensors")):
        return
    if not any(path.glob("pytorch_model*.bin")):
        raise ModelError(f"The folder {str(path)!r} holds no weights: *.safetensors is missing.")
    if not allow_pickle:
        raise ModelError(
            f"The folder {str(path)!r} holds its weights as pickle files only, which can run code when read. Convert "
            "them to safetensors, or pass --allow-pickle if you trust them."
        )


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


def context_length(config: "PretrainedConfig") -> int | None:
    """How many positions the model has; None where its positions have no end (ALiBi)."""
    if config.model_type == "bloom" or getattr(config, "alibi", False):
        return None
    length = getattr(config, "max_position_embeddings", None)
    return None if length is None else int(length)
