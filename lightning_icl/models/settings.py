"""What a user can set about the model under study. Imports nothing heavy: `--help` reads this file."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model, and what it may do to this machine."""

    model: str = "builtin"
    """The model under study: `builtin`, an installed one such as `smollm2-135m`, a hub name, a folder, a GGUF file (on
    the hub OWNER/NAME/FILE.gguf), or `random:NAME` for fresh weights."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    adapter: str | None = None
    """Folder of a PEFT adapter (LoRA and the like) to be merged into the model in memory."""
    allow_pickle: bool = False
    """Read weights from pickle files where a model has no safetensors; they can run code."""
    trust_remote_code: bool = False
    """Let a model's own code from the hub run."""
