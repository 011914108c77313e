"""The built-in model's tokenizer: byte-level BPE trained on generated text, so that any text can be encoded."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from lightning_icl.pretraining.documents import document
from lightning_icl.tasks import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# How often the word lists are repeated, so that their words become tokens of their own.
_REPEATS = 60


def train_tokenizer(vocabulary: int, seed: int) -> "PreTrainedTokenizerFast":
    """A tokenizer with BOS `<s>`, EOS `</s>` and `vocabulary` tokens in all."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_text(seed), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def _training_text(seed: int) -> Iterator[str]:
    """Documents, every label word, and common English words with and without a capital."""
    for number in range(400):
        yield "\n".join(prompt + answer for prompt, answer in islice(document(seed, number, 0.4), 20))
    natural = [word for rows in words.NATURAL_LABELS.values() for row in rows for word in row]
    for _ in range(_REPEATS):
        yield " " + " ".join([*words.LABELS, *natural, *words.COMMON])
        yield " " + " ".join(word.capitalize() for word in words.COMMON[:120])
