"""The tokenizer: one that exists, or byte-level BPE trained on what the model will read, so any text can be encoded."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

from lightning_icl.errors import ModelError
from lightning_icl.file_names import input_path
from lightning_icl.models.finding import BUILTIN, ModelSource, find_model
from lightning_icl.models.loading import load_config, load_tokenizer
from lightning_icl.models.packaged import PACKAGED
from lightning_icl.pretraining._documents import document
from lightning_icl.pretraining.text import Text
from lightning_icl.tasks import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# How often the word lists are repeated, so that their words become tokens of their own.
_REPEATS = 60
# Characters of a text that the tokenizer is trained on; more would take long and change little.
_MOST = 100_000_000


def named_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder, of a model on the hub, or of one that has a name of its own, such as `builtin`.

    Raises:
        ModelError: there is none.
    """
    if name in (*BUILTIN, *PACKAGED):
        return load_tokenizer(find_model(name))
    path = input_path(name, "--tokenizer")
    if not path.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        # A path-like name is a folder that is missing, not a name on the hub.
        raise ModelError(f"tokenizer: the folder {name!r} does not exist.")
    return load_tokenizer(ModelSource(name=name, location=str(path) if path.is_dir() else name))


def fitting_tokenizer(source: ModelSource, name: str | None) -> "PreTrainedTokenizerBase":
    """The tokenizer for a model that exists: its own, or another of as many tokens.

    Args:
        source: the model.
        name: folder or hub name of another tokenizer.

    Raises:
        ModelError: there is none, or the model's weights are for another number of tokens.
    """
    if name is None:
        return load_tokenizer(source)
    tokenizer = named_tokenizer(name)
    try:
        # The vocabulary of its weights may be padded; what its tokenizer has is what must fit.
        tokens = len(load_tokenizer(source))
    except ModelError:  # weights alone
        tokens = load_config(source).vocab_size
    if len(tokenizer) != tokens:
        raise ModelError(
            f"tokenizer = {name!r} has {len(tokenizer)} tokens, but the model {source.name!r} was made for {tokens}. "
            "Leave tokenizer out to use the model's own."
        )
    return tokenizer


def train_tokenizer(
    vocabulary: int, seed: int, text: Text | None = None, generated: bool = True
) -> "PreTrainedTokenizerFast":
    """A tokenizer with BOS `<s>`, EOS `</s>` and `vocabulary` tokens in all, or as many as a short text has pieces for.

    Args:
        vocabulary: number of tokens.
        seed: of the generated documents.
        text: what the model will read besides them.
        generated: whether it will read generated documents.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        # All 256 bytes, so that any text can be encoded.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own = _training_text(seed) if generated else iter(())
    tokenizer.train_from_iterator(chain(own, _beginning(text) if text is not None else ()), trainer)
    # EOS pads as well: padding is never looked at.
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def _beginning(text: Text) -> Iterator[str]:
    """A text's pieces up to a length that is enough."""
    # Enough for the statistics; the rest would only take time.
    left = _MOST
    for piece in chain.from_iterable(text.documents()):
        if left <= 0:
            return
        left -= len(piece)
        yield piece


def _training_text(seed: int) -> Iterator[str]:
    """Documents, every label word, and common English words with and without a capital."""
    for number in range(400):
        # Twenty examples of each: documents are endless.
        yield "\n".join(prompt + answer for prompt, answer in islice(document(seed, number, 0.4), 20))
    natural = [word for rows in words.NATURAL_LABELS.values() for row in rows for word in row]
    for _ in range(_REPEATS):
        yield " " + " ".join([*words.LABELS, *natural, *words.COMMON])
        yield " " + " ".join(word.capitalize() for word in words.COMMON[:120])
