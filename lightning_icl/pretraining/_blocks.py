"""What a training step reads: blocks of generated documents, blocks of text, or both at a stated share."""

import math
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_icl.errors import TextError
from lightning_icl.pretraining._documents import document
from lightning_icl.pretraining.packing import TextBlocks
from lightning_icl.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Short documents are numbered from here on, so that none is met again as a long one.
_SHORT = 1 << 30
_EXAMPLE = 16  # tokens of an example, about; decides how many are encoded at a time, and nothing else

Block = tuple[Tensor, Tensor, Tensor]
"""Token ids, loss weights and positions, each (block,)."""


class Documents(Dataset[Block]):
    """Generated documents, each filled to a whole block; number i is always the same.

    In the first steps a block holds several short documents, to be taken apart by the training step: looking back is
    learnt several times sooner where there is little to look back at.

    Raises:
        TextError: the tokenizer has no EOS token.
    """

    def __init__(self, settings: PretrainSettings, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._settings, self._tokenizer = settings, tokenizer
        if tokenizer.eos_token_id is None:
            raise TextError("The tokenizer has no EOS token to put behind examples. Give another tokenizer.")
        self._answers: dict[str, list[int]] = {}
        self._first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id

    def short(self, number: int) -> Block:
        """A block of short documents."""
        settings = self._settings
        # A block has the same number of tokens in both phases, so steps cost the same.
        pieces = settings.block // settings.short_block
        made = [
            self._filled(_SHORT + number * pieces + piece, settings.short_block, settings.repeat_share)
            for piece in range(pieces)
        ]
        ids, weights, positions = (torch.cat(parts) for parts in zip(*made, strict=True))
        return ids, weights, positions

    def __getitem__(self, number: int) -> Block:
        return self._filled(number, self._settings.block, repeat_share=0.0)

    def _filled(self, number: int, length: int, repeat_share: float) -> Block:
        """A document cut at a length, and the loss weight and position of each token."""
        settings, ids, end = self._settings, [self._first], self._tokenizer.eos_token_id
        # BOS is never predicted; its weight only fills the place.
        weights = [1.0]
        # Endless: cut when the block is full, in the middle of an example if need be.
        examples = document(settings.seed, number, settings.natural_share, repeat_share, settings.named_share)
        while len(ids) < length:
            # Many at a time: a call of the tokenizer costs as much as what it does for several examples.
            prompts, answers = zip(*islice(examples, (length - len(ids)) // _EXAMPLE + 1), strict=True)
            for prompt, answer in zip(self._encoded(list(prompts)), map(self._answer, answers), strict=True):
                ids += [*prompt, *answer, end]
                weights += [*[1.0] * len(prompt), *[settings.answer_weight] * len(answer), 1.0]
        return torch.tensor(ids[:length]), torch.tensor(weights[:length]), torch.arange(length)

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _answer(self, text: str) -> list[int]:
        """An answer's tokens, kept: the same few hundred label words come again in all documents."""
        if text not in self._answers:
            (self._answers[text],) = self._encoded([text])
        return self._answers[text]


class TrainingBlocks(Dataset[Block]):
    """All blocks of a training in order: text and generated documents interleaved evenly; number i is always the same.

    Args:
        settings: of the training.
        tokenizer: of the documents.
        text: blocks of text; None where there is none.
    """

    def __init__(
        self, settings: PretrainSettings, tokenizer: "PreTrainedTokenizerBase", text: TextBlocks | None
    ) -> None:
        self._settings, self._text = settings, text
        self._documents = Documents(settings, tokenizer)

    def __len__(self) -> int:
        return self._settings.steps * self._settings.batch

    def __getitem__(self, number: int) -> Block:
        # Block i is text where the running share passes a whole number: even at every scale, and the same after a
        # resume.
        share = self._settings.read_share
        read = math.floor(number * share)  # blocks of text before this one
        if self._text is not None and math.floor((number + 1) * share) > read:
            ids, positions = self._text[read]
            return ids, torch.ones(len(ids)), positions
        if number // self._settings.batch < self._settings.short_steps:
            return self._documents.short(number - read)
        return self._documents[number - read]
