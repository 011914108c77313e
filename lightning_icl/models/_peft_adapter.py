"""PEFT adapters (LoRA and the like): checked against the model by their headers, then merged into it in memory."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import ModelError
from lightning_icl.models._checkpoint import read_header, read_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def check_adapter(folder: Path) -> Path:
    """Whether a folder holds an adapter that can be read safely; nothing heavy is imported.

    Raises:
        ModelError: it does not, or PEFT is not installed.
    """
    if not (folder / CONFIG).is_file():
        raise ModelError(f"--adapter {str(folder)!r} holds no PEFT adapter: {CONFIG} is missing.")
    read_object(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"--adapter {str(folder)!r} holds no weights that can be read safely: {WEIGHTS} is missing. Save the "
            "adapter again with a PEFT version that writes safetensors."
        )
    read_header(folder / WEIGHTS)
    if find_spec("peft") is None:
        raise ModelError("--adapter needs PEFT. Install it: pip install 'lightning-icl[adapter]'")
    return folder


def check_adapter_fits(folder: Path, names: frozenset[str], config: "PretrainedConfig") -> None:
    """Whether an adapter was trained on a model and can be merged into it.

    Args:
        folder: of the adapter.
        names: what the model is called, without owners and folders.
        config: the model's configuration.

    Raises:
        ModelError: it belongs to another model, or is of a kind that cannot be merged.
    """
    # Some adapters were saved without the name; then the shapes below must decide alone.
    base = str(read_object(folder / CONFIG).get("base_model_name_or_path") or "")
    # Only the last part: the same model has other owners and folders on other machines.
    if base and Path(base).name.casefold() not in names:
        raise ModelError(
            f"--adapter {str(folder)!r} was trained on {base!r}, not on {' or '.join(sorted(names))}. Give the model "
            "it was trained on as --model."
        )
    expected = _expected(folder, config)
    saved = {name: header.shape for name, header in read_header(folder / WEIGHTS).items()}
    odd = sorted(name for name in expected.keys() | saved.keys() if expected.get(name) != saved.get(name))
    if odd:
        raise ModelError(
            f"--adapter {str(folder)!r} does not fit the model: {odd[0]} has shape {saved.get(odd[0])} in the adapter, "
            f"needs {expected.get(odd[0])} ({len(odd)} differ). Give the model it was trained on as --model."
        )


def _expected(folder: Path, config: "PretrainedConfig") -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that an adapter of this configuration has for this model."""
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    try:
        # On the meta device: shapes without memory.
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
            adapted: Any = get_peft_model(model, PeftConfig.from_pretrained(str(folder)))
        if not hasattr(adapted, "merge_and_unload"):
            raise ValueError("adapters of its kind cannot be merged into weights")
        return {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(adapted).items()}
    except Exception as error:  # PEFT raises errors of its own for each kind of adapter
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ModelError(f"--adapter {str(folder)!r} cannot be used with this model: {reason}.") from error


def merge_adapter(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """The model with the adapter's change added to its weights.

    Args:
        model: as it was loaded; its weights are changed.
        folder: of the adapter.
    """
    from peft import PeftModel

    adapted: Any = PeftModel.from_pretrained(model, str(folder))
    # `safe_merge` refuses to merge NaN into the weights.
    merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    return merged
