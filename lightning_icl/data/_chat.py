"""`--chat`: demonstrations as turns of user and assistant, written by the model's own chat template.

The template writes a conversation whose contents are marked words. The text between the marks is what surrounds every
prompt and answer: a header (BOS and system message, in the role of BOS), the user's turn up to where the assistant
begins to answer, and what closes the answer (in the role of the separator). Whether these pieces, put together, give
what the template writes is checked on the very prompt that is used; a model for which they do not is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_icl.data._encoding import Ids, read
from lightning_icl.data._layout import Layout
from lightning_icl.errors import TaskError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Words that no template contains and that no `strip` or capitalisation in a template would alter.
_QUESTIONS, _ANSWER = ("QmarkedQ", "RmarkedR"), "AmarkedA"


@dataclass(frozen=True, kw_only=True)
class ChatLayout(Layout):
    """Prompts as turns of a user, answers as turns of an assistant."""

    def read(self, text: str) -> Ids:
        """Tokens of text that the template has written: special tokens in it are meant as such."""
        return read(self.tokenizer, text)

    def content(self, text: str) -> str:
        """A turn's text as templates write it: without blanks at its ends.

        Raises:
            TaskError: it spells a token that would mean something between turns.
        """
        spelt = next((token for token in _control_tokens(self.tokenizer) if token in text), None)
        if spelt is not None:
            raise TaskError(
                f"the text spells {shown(spelt)}, which would begin or end a turn of the chat. Change the text or "
                "leave the row out."
            )
        return text.strip()

    def check_whole(self, turns: Sequence[tuple[str, str]], prompt: str, token_ids: Sequence[int]) -> None:
        """Compare a whole in-context input with what the template makes of the same conversation.

        Raises:
            TaskError: they differ.
        """
        # Templates strip contents, so the comparison must too.
        turns = [(self.content(text), answer) for text, answer in turns]
        written = _write(self.tokenizer, turns, self.content(prompt))
        if self.read(written) != tuple(token_ids):
            raise _uncuttable("it writes a conversation other than its turns one after another")


def chat_layout(tokenizer: "PreTrainedTokenizerBase") -> ChatLayout:
    """The pieces of a tokenizer's chat template.

    Raises:
        TaskError: it has none, or one that cannot be cut into header and turns.
    """
    if not tokenizer.chat_template:
        raise TaskError("--chat: this model's tokenizer has no chat template. Leave --chat out.")
    first, second = _QUESTIONS
    # A second question is needed: many templates write the first turn in a way of its own.
    whole = _write(tokenizer, [(first, _ANSWER)], second)
    closed = _write(tokenizer, [(first, _ANSWER)])
    if [whole.count(mark) for mark in (first, _ANSWER, second)] != [1, 1, 1] or not whole.startswith(closed):
        raise _uncuttable("it does not write one turn behind another")
    begin, rest = whole.split(first)
    # One mark each, so every split gives two parts.
    answering, rest = rest.split(_ANSWER)
    between, after = rest.split(second)
    closing = closed.split(_ANSWER)[1]
    before = between.removeprefix(closing)
    if not begin.endswith(before):
        raise _uncuttable("it writes the first turn in another way than later ones")
    if not answering.startswith(after):
        raise _uncuttable("the assistant's turns do not begin as its generation prompt does")
    # What precedes the first turn but no later one is the header (BOS, system message).
    head, joint = begin.removesuffix(before), answering.removeprefix(after)
    example = f"{head}{before}{first}{answering}{_ANSWER}"
    # Encoded with and without the closing text: a tokenizer may merge an answer's end with what follows it.
    start, all_ids = read(tokenizer, example), read(tokenizer, example + closing)
    if all_ids[: len(start)] != start:
        raise _uncuttable("an answer and what closes it are joined into one token")
    lead = read(tokenizer, head)
    return ChatLayout(
        tokenizer=tokenizer,
        bos=lead,
        sep=all_ids[len(start) :],
        separator="chat template",
        head=head,
        lead=lead,
        before=before,
        after=after,
        joint=joint,
    )


def _write(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[tuple[str, str]], prompt: str | None = None) -> str:
    """What the template makes of questions with answers, and of a last question that is to be answered."""
    messages = [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    if prompt is not None:
        messages.append({"role": "user", "content": prompt})
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt is not None))
    except Exception as error:  # templates are programs, and fail in ways of their own
        # Their messages span lines; ours is one.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _uncuttable(shown(reason, most=200, quoted=False)) from error


def _control_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Added tokens that mean something to the template: the special ones, and others that it writes."""
    # Tokens such as <|im_start|> are not always flagged special, but they end a turn all the same.
    template = str(tokenizer.chat_template)
    return [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.content.strip() and (token.special or token.content in template)
    ]


def _uncuttable(reason: str) -> TaskError:
    return TaskError(
        "--chat: the chat template of this model's tokenizer cannot be cut into turns of user and assistant: "
        f"{reason}. Leave --chat out."
    )
