"""GGUF files: read by transformers, their quantised weights dequantised to floating point.

Reading one is slow, a second for each 20,000 words of its vocabulary, and transformers does it for configuration,
tokenizer and weights each. Here one reading serves all three.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAGIC = b"GGUF"
MERGED = ("llama", "gpt2")
"""What GGUF calls vocabularies whose words are built by merges (byte-pair encoding)."""


def check_start(path: Path) -> None:
    """Whether a file begins as GGUF files do; nothing heavy is imported.

    Raises:
        ModelError: it is something else, or what reads it is not installed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise ModelError(f"The model file {str(path)!r} cannot be read: {error.strerror or error}.") from error
    if start != MAGIC:
        raise ModelError(
            f"The model {str(path)!r} is no GGUF file. Give one, or the folder that holds config.json and the weights."
        )
    # Looked up without importing, which would cost seconds before the first message.
    if find_spec("gguf") is None:
        raise ModelError("GGUF files need gguf. Install it: pip install 'lightning-icl[gguf]'")


def check_whole(path: Path) -> None:
    """Whether every tensor of a file is there, and of a kind that can be made numbers.

    Raises:
        ModelError: the file is cut short or damaged, or holds what cannot be read.
    """
    import numpy as np
    from gguf import GGML_QUANT_SIZES, dequantize

    try:
        reader = _reader(str(path))
    except Exception as error:  # the reader checks nothing, and raises whatever a damaged file leads to
        raise ModelError(f"The GGUF file {str(path)!r} is cut short or damaged. Download it again.") from error
    for kind in {tensor.tensor_type for tensor in reader.tensors}:
        width = GGML_QUANT_SIZES[kind][1]
        # One block of zeros tells whether this kind is supported, without touching the weights.
        try:
            dequantize(np.zeros((1, width), np.uint8), kind)
        except NotImplementedError as error:
            raise ModelError(
                f"The GGUF file {str(path)!r} holds weights of type {kind.name}, which the gguf package cannot "
                "dequantise. Use another quantisation of the model, such as Q8_0 or Q4_K_M."
            ) from error


def check_vocabulary(path: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Whether a vocabulary of merges is read as one.

    transformers 5.17 took that of Gemma for words with probabilities: texts are read without an error, in fragments.

    Raises:
        ModelError: it is read as a vocabulary of another kind.
    """
    import transformers

    field = _reader(str(path)).fields.get("tokenizer.ggml.model")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if field is None or backend is None:
        return
    if field.contents() in MERGED and type(backend.model).__name__ == "Unigram":
        raise ModelError(
            f"transformers {transformers.__version__} reads the vocabulary of the GGUF file {str(path)!r} as one of "
            "another kind and would cut its words into fragments. Install the version that this was tested with: "
            "pip install 'transformers>=5.23'"
        )


# One file at a time: a reader maps the whole file.
@lru_cache(maxsize=1)
def _reader(path: str) -> "GGUFReader":
    from gguf.gguf_reader import GGUFReader  # not the name that `read_once` replaces

    return GGUFReader(path)


@contextmanager
def read_once() -> Iterator[None]:
    """Until the context ends, transformers gets the reader that was made last, and draws no progress bar."""
    import gguf
    from transformers import modeling_gguf_pytorch_utils

    # transformers imports the reader inside its functions, so replacing the name in its module is enough.
    with (
        _replaced(gguf, "GGUFReader", lambda path: _reader(str(path))),
        _replaced(modeling_gguf_pytorch_utils, "tqdm", lambda tensors, **_: tensors),
    ):
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, value: Callable[..., Any]) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def forget() -> None:
    """Let the file that was read last go."""
    _reader.cache_clear()


def as_plain(model: "PreTrainedModel") -> None:
    """Remove the record of a quantisation that the weights no longer have."""
    # Otherwise saving or fine-tuning would refuse the model as quantised.
    quantizer: Any = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
