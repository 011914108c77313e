"""From text to tokens: BOS and separator, prompts, and answers (definitions, section 1).

Prompt and answer are encoded apart and joined, so that a prompt's tokens never depend on its answer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_icl.data.settings import Separator
from lightning_icl.errors import TaskError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[int, ...]:
    """Token ids of a text, without special tokens."""
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def bos_ids(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """The tokenizer's BOS, else its EOS, else nothing."""
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return (int(token_id),)
    return ()


def separator_ids(tokenizer: "PreTrainedTokenizerBase", separator: Separator) -> tuple[int, ...]:
    """Tokens that close each demonstration: the EOS, or a newline.

    Raises:
        TaskError: the tokenizer has no EOS, or cannot encode a newline.
    """
    if separator == "eos":
        if tokenizer.eos_token_id is None:
            raise TaskError("The tokenizer has no EOS token to separate demonstrations. Use --separator newline.")
        return (int(tokenizer.eos_token_id),)
    ids = encode(tokenizer, "\n")
    if not ids:
        raise TaskError("The tokenizer encodes a newline as nothing. Use --separator eos.")
    return ids


def encode_answer(tokenizer: "PreTrainedTokenizerBase", word: str) -> tuple[int, ...]:
    """Token ids of an answer word with its leading space.

    Tokenizers that put a space before every text would count the space twice, as a token of its own that no running
    text has; there the word alone already carries its space.
    """
    alone = encode(tokenizer, word)
    spaced = encode(tokenizer, f" {word}")
    return (
        alone if len(spaced) == len(alone) + 1 and spaced[1:] == alone and _is_space(tokenizer, spaced[0]) else spaced
    )


def _is_space(tokenizer: "PreTrainedTokenizerBase", token_id: int) -> bool:
    """Whether a token is a SentencePiece space; a byte-level space token (`Ġ`) is real text and stays."""
    return tokenizer.convert_ids_to_tokens(token_id) == "▁"


def encode_answers(
    tokenizer: "PreTrainedTokenizerBase", words: Sequence[str], *, unknown: bool = False
) -> tuple[tuple[int, ...], ...]:
    """Token ids of every answer of a task, or of a row.

    Args:
        tokenizer: the model's tokenizer.
        words: the answers.
        unknown: whether an answer may hold the unknown token, as texts of data sets do and answer words should not.

    Raises:
        TaskError: an answer has no tokens or an unknown one, or two answers have the same tokens.
    """
    seen: dict[tuple[int, ...], str] = {}
    for word in words:
        ids = encode_answer(tokenizer, word)
        if not ids:
            raise TaskError(f"The answer {word!r} tokenises to nothing. Choose another answer word.")
        if not unknown and tokenizer.unk_token_id in ids and not _unk_is_common(tokenizer):
            raise TaskError(f"The answer {word!r} has a token this tokenizer does not know. Choose another word.")
        if ids in seen:
            raise TaskError(
                f"The answers {seen[ids]!r} and {word!r} have the same tokens {list(ids)}, so no score can tell them "
                "apart. Choose other answer words."
            )
        seen[ids] = word
    return tuple(seen)


def _unk_is_common(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Byte-level tokenizers such as GPT-2's name their EOS as the unknown token and never emit it for text."""
    return tokenizer.unk_token_id in (tokenizer.eos_token_id, tokenizer.bos_token_id)
