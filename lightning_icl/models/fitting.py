"""Whether weights fit their configuration: nothing missing, nothing left over, every shape as it should be.

transformers fills missing weights with random ones and goes on with a warning. Its own loading is rehearsed here on
tensors without content, made from the headers of the files, so that a misfit is found before any weight is read.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import ModelError, UserError
from lightning_icl.models._checkpoint import Header, read_header

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_FLOATS = ("F64", "F32", "F16", "BF16")
_SHOWN = 3

# What puts a word before every name of a checkpoint, and what to save to be without it.
_PREFIXES = {
    "_orig_mod.": ("torch.compile", "model._orig_mod"),
    "module.": ("DataParallel or DistributedDataParallel", "model.module"),
    "base_model.model.": ("PEFT", "model.merge_and_unload()"),
    "model.": ("a LightningModule that keeps the model as `self.model`", "module.model"),
}


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """Where weights and configuration differ, as transformers reports it."""

    missing: tuple[str, ...]
    """Names that the configuration asks for and the files lack."""
    unexpected: tuple[str, ...]
    """Names in the files that the configuration has no place for."""
    mismatched: tuple[str, ...]
    """Names whose shapes differ, with both shapes."""

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> "Misfit":
        """From the loading report of `from_pretrained`."""
        shapes = sorted((name, tuple(saved), tuple(built)) for name, saved, built in report["mismatched_keys"])
        return cls(
            missing=tuple(sorted(report["missing_keys"])),
            unexpected=tuple(sorted(report["unexpected_keys"])),
            mismatched=tuple(f"{name} ({saved} in the file, {built} configured)" for name, saved, built in shapes),
        )

    def refuse(self, model: str) -> None:
        """Nothing where all fits.

        Args:
            model: its name, for the message.

        Raises:
            ModelError: something does not, with the first names of each kind and, for a known cause, what to do.
        """
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.mismatched}
        parts = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds.items() if names]
        if parts:
            raise ModelError(
                f"The weights of the model {model!r} do not fit its configuration: {'; '.join(parts)}. {self._advice()}"
            )

    def _advice(self) -> str:
        for prefix, (wrapper, inside) in _PREFIXES.items():
            plain = {name.removeprefix(prefix) for name in self.unexpected if name.startswith(prefix)}
            # Every unexpected name carries the prefix and becomes a missing one without it: the cause is certain.
            if len(plain) == len(self.unexpected) and plain & set(self.missing):
                return f"Every name begins with {prefix!r}, which {wrapper} adds: save `{inside}` instead."
        return "Save or download the model again; what is not in the file would be random numbers."


def check_fit(model: str, config: "PretrainedConfig", files: tuple[Path, ...]) -> None:
    """Rehearse the loading of a model.

    Args:
        model: its name, for messages.
        config: its configuration, of a supported architecture.
        files: its safetensors files.

    Raises:
        ModelError: weights are missing, left over, of another shape or quantised, or no model can be built from the
            configuration.
    """
    headers: dict[str, Header] = {}
    for path in files:
        headers |= read_header(path)
    Misfit.of(_rehearse(model, config, headers)).refuse(model)
    # A quantised checkpoint also loads without complaint, as integers.
    packed = sorted(name for name, header in headers.items() if header.dtype not in _FLOATS and _is_weight(name))
    if packed:
        raise ModelError(
            f"The weights of the model {model!r} are quantised: {packed[0]!r} holds numbers of type "
            f"{headers[packed[0]].dtype}. Fine-tuning needs weights in floating point: give the model they were made "
            "from."
        )


def _is_weight(name: str) -> bool:
    """Whether it is learnt; masks and the like, which some checkpoints hold, are not."""
    return name.endswith((".weight", ".bias"))


def _rehearse(model: str, config: "PretrainedConfig", headers: Mapping[str, Header]) -> dict[str, Any]:
    """The loading report of transformers for tensors that have shapes only."""
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    from lightning_icl.models.momentum.registration import enable_momentum

    enable_momentum()
    # The meta device holds shapes only, so the rehearsal costs no memory.
    tensors = {name: torch.empty(header.shape, device="meta") for name, header in headers.items()}
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    try:
        with silent():
            _, report = kind.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,  # reports them, in place of an error without their names
                output_loading_info=True,
            )
    except UserError:  # our own refusals say what to do already
        raise
    except Exception as error:  # configurations fail in as many ways as there are models
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise ModelError(f"The configuration of the model {model!r} describes no model: {reason}.") from error
    return dict(report)


@contextmanager
def silent() -> Iterator[None]:
    """Keep what transformers prints while loading off the terminal."""
    from transformers.utils import logging

    # Restored afterwards: these are settings of the whole process.
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def check_vocabulary(
    model: str, config: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase", token_ids: Iterable[int]
) -> None:
    """Whether the model has an embedding for every token that it is to read.

    Args:
        model: its name, for the message.
        config: its configuration.
        tokenizer: that made the tokens.
        token_ids: the tokens.

    Raises:
        ModelError: a token lies beyond the embedding.
    """
    # The highest token decides; tokens are looked up by number, without a gap.
    highest, vocabulary = max(token_ids), int(config.vocab_size)
    if highest >= vocabulary:
        word = tokenizer.convert_ids_to_tokens(highest)
        raise ModelError(
            f"The tokenizer does not fit the model {model!r}: token {word!r} has number {highest}, and the model has "
            f"embeddings for {vocabulary} tokens (0 to {vocabulary - 1}). Use the tokenizer that it was trained with."
        )
