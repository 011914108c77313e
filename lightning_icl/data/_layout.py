"""How texts become the tokens of an input: what begins it, what closes a demonstration, what joins an answer.

Prompts are encoded without their answers, so that a prompt's tokens never depend on its answer. An answer has the
tokens that `prompt + " " + answer` has behind the prompt, by any tokenizer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lightning_icl.data._encoding import Ids, bos_ids, encode, read, special_tokens, unknown_token
from lightning_icl.errors import TaskError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A prompt and the answers to choose from, as tokens."""

    prompt: Ids
    answers: tuple[Ids, ...]
    """Behind the prompt, in the order they were given."""
    joined: tuple[str, ...]
    """Answers whose beginning the tokenizer would join with the prompt's end into one token, encoded apart instead."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What stands around the texts of a task, for one tokenizer: here a blank between prompt and answer, no more."""

    tokenizer: "PreTrainedTokenizerBase"
    bos: Ids
    """What begins every input."""
    sep: Ids
    """What closes each demonstration in a prompt."""
    separator: str
    """The same in words: `eos`, `newline`, or its text."""
    head: str = ""
    """Text before the first prompt, whose tokens are `lead`."""
    lead: Ids = ()
    """Tokens of `head`, which are part of BOS rather than of a prompt."""
    before: str = ""
    """Text before every prompt."""
    after: str = ""
    """Text behind every prompt, up to where an answer begins."""
    joint: str = " "
    """Text between that and an answer."""

    # A method, so that the chat layout can read special tokens as special.
    def read(self, text: str) -> Ids:
        """Tokens of a text.

        Raises:
            TaskError: it cannot be read as text.
        """
        return encode(self.tokenizer, text, self.special)

    @cached_property
    def special(self) -> Mapping[int, str]:
        """The tokenizer's special tokens."""
        return special_tokens(self.tokenizer)

    def content(self, text: str) -> str:
        """A prompt's or an answer's text as it stands in an input.

        Raises:
            TaskError: it must not stand there.
        """
        return text

    def check_whole(self, turns: Sequence[tuple[str, str]], prompt: str, token_ids: Sequence[int]) -> None:
        """Compare a whole in-context input with what another program would make of it: here there is none.

        Args:
            turns: prompt and answer of each demonstration.
            prompt: of the query.
            token_ids: the input.
        """

    def encode(self, text: str, words: Sequence[str], *, unknown: bool = False) -> Encoded:
        """Tokens of a prompt and of the answers behind it.

        Args:
            text: the prompt.
            words: the answers.
            unknown: whether an answer may hold the unknown token: texts of data sets may, answer words should not.

        Raises:
            TaskError: the prompt or an answer has no tokens or cannot be read as text, an answer has an unknown token,
                or two answers have the same tokens; the message does not name the row.
        """
        written = f"{self.head}{self.before}{self.content(text)}{self.after}"
        start, joined = self.read(written), []
        # The header counts as BOS, so its tokens are cut off the prompt's.
        prompt = start[len(self.lead) :]
        if not prompt or start[: len(self.lead)] != self.lead:
            raise TaskError("the prompt tokenises to nothing of its own.")
        seen: dict[Ids, str] = {}
        for word in words:
            ids, separable = self._behind(written, start, f"{self.joint}{self.content(word)}")
            if not separable:
                joined.append(word)
            if not ids:
                raise TaskError(f"the answer {shown(word)} tokenises to nothing. Choose another answer word.")
            if not unknown and unknown_token(self.tokenizer) in ids:
                raise TaskError(
                    f"the answer {shown(word)} has a token this tokenizer does not know. Choose another word."
                )
            # Equal tokens would have equal scores, and the first answer would win every tie.
            if ids in seen:
                raise TaskError(
                    f"the answers {shown(seen[ids])} and {shown(word)} have the same tokens {shown(list(ids))}, so no "
                    "score can tell them apart. Choose other answer words."
                )
            # Insertion order is the order of answers.
            seen[ids] = word
        return Encoded(prompt=prompt, answers=tuple(seen), joined=tuple(joined))

    def _behind(self, before: str, start: Ids, text: str) -> tuple[Ids, bool]:
        """Tokens that a text has behind another one, and whether the boundary between the two is kept.

        Where the tokenizer would join the end of one and the beginning of the other, the text is encoded alone behind a
        single letter, so that the blank which some tokenizers put before any text is not in it.
        """
        # Encoded together first: behind a prompt, tokenizers give " yes" other tokens than on its own.
        whole = self.read(before + text)
        if whole[: len(start)] == start:
            return whole[len(start) :], True
        letter, whole = self.read("x"), self.read(f"x{text}")
        return (whole[len(letter) :] if whole[: len(letter)] == letter else self.read(text)), False


def plain_layout(tokenizer: "PreTrainedTokenizerBase", separator: str = "auto") -> Layout:
    """Texts one after another, each demonstration closed by a separator (definitions, section 1).

    Args:
        tokenizer: the model's tokenizer.
        separator: `eos`, `newline`, any other text, or `auto` for what fits the tokenizer.

    Raises:
        TaskError: the tokenizer has no such separator.
    """
    # EOS would tell a chat model that the conversation is over.
    if separator == "auto":
        separator = _fitting_separator(tokenizer)
    sep = separator_ids(tokenizer, separator)
    return Layout(tokenizer=tokenizer, bos=bos_ids(tokenizer), sep=sep, separator=separator)


def _fitting_separator(tokenizer: "PreTrainedTokenizerBase") -> str:
    """EOS, as in the paper; a newline where there is none, or where EOS ends a turn of a chat."""
    if tokenizer.eos_token_id is None or (tokenizer.chat_template and _text_ids(tokenizer, "\n")):
        return "newline"
    return "eos"


def separator_ids(tokenizer: "PreTrainedTokenizerBase", separator: str) -> Ids:
    """Tokens that close each demonstration: the EOS, or those of a text behind another one.

    Raises:
        TaskError: the tokenizer has no EOS, or makes nothing of the text.
    """
    if separator == "eos":
        if tokenizer.eos_token_id is None:
            raise TaskError("The tokenizer has no EOS token to separate demonstrations. Use --separator newline.")
        return (int(tokenizer.eos_token_id),)
    try:
        ids = _text_ids(tokenizer, "\n" if separator == "newline" else separator)
    except (UnicodeEncodeError, TypeError) as error:  # half of a surrogate pair, which is no text
        raise TaskError(f"--separator {shown(separator)} is no text.") from error
    if not ids:
        raise TaskError(
            f"--separator {shown(separator)} tokenises to nothing with this tokenizer. Use eos, newline or a text that "
            "has tokens."
        )
    return ids


def _text_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> Ids:
    """Tokens of a separator where it stands, behind a word; special tokens in it are meant."""
    # Behind a letter, since some tokenizers drop a leading newline or put a blank before a text.
    word, whole = read(tokenizer, "x"), read(tokenizer, f"x{text}")
    return whole[len(word) :] if whole[: len(word)] == word else read(tokenizer, text)
