"""From text to tokens: text alone, text after other text, and the tokens that begin an input (definitions, section 1).

Text is never interpreted: a special token that a row spells out is read as the letters it consists of.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lightning_icl.errors import TaskError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, special: Mapping[int, str]) -> Ids:
    """Token ids of a text, without special tokens, whatever the text spells.

    Args:
        tokenizer: the model's tokenizer.
        text: the text.
        special: its `special_tokens`, found once for many texts.

    Raises:
        TaskError: the text spells a special token that the tokenizer cannot read as text.
    """
    ids = read(tokenizer, text)
    # The usual case: one tokenizer call for a text without special tokens.
    if special.keys().isdisjoint(ids):
        return ids
    # Only now, since splitting special tokens is slow in some tokenizers and changes nothing for other texts.
    ids = read(tokenizer, text, split_special_tokens=True)
    spelt = next((special[number] for number in ids if number in special and special[number] in text), None)
    if spelt is not None:  # an unknown token is special too, but stands for text and is not spelt by it
        raise TaskError(
            f"the text spells {shown(spelt)}, a special token that this tokenizer cannot read as text. Change the text "
            "or leave the row out."
        )
    return ids


def read(tokenizer: "PreTrainedTokenizerBase", text: str, **settings: bool) -> Ids:
    """Token ids as the tokenizer makes them, special tokens in the text being special."""
    # `verbose=False` silences warnings about texts longer than the context, which are checked elsewhere.
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False, **settings)["input_ids"])


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[int, str]:
    """Every special token's text by its id: those with a role, and those added without one."""
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    # Tokens with a role are not always among the added ones (SentencePiece models keep them in the vocabulary).
    return added | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))


def bos_ids(tokenizer: "PreTrainedTokenizerBase") -> Ids:
    """The tokenizer's BOS, else its EOS, else nothing."""
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return (int(token_id),)
    return ()


def unknown_token(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The token of what a tokenizer does not know; None where it knows everything.

    Byte-level tokenizers such as GPT-2's name their EOS as the unknown token and never emit it for text.
    """
    unknown = tokenizer.unk_token_id
    # Then every EOS would look like a character the tokenizer does not know.
    return None if unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id) else unknown
