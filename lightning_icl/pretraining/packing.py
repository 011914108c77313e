"""Text as one long row of tokens on disk, and blocks cut from it without padding.

Documents follow each other as `BOS document EOS` (EOS alone where the tokenizer has no BOS of its own). The row is
thought of as a ring: every epoch starts at another place of it, so the tokens left over by whole blocks are other ones
each time.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_icl.errors import TextError
from lightning_icl.pretraining.text import Text
from lightning_icl.saving.workspace import held

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WAIT = 3600.0  # seconds; another process of the same training encodes the text meanwhile


def tokens_name(name: str, text: Text, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Name for a text's file of tokens: its digest gives other text or another tokenizer another file."""
    content = json.dumps([text.record, sorted(tokenizer.get_vocab().items())])
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.tokens"


def encode_text(text: Text, tokenizer: "PreTrainedTokenizerBase", path: Path) -> None:
    """Write a text's tokens (int32, little-endian) into a file, whole or not at all; a file that is there stays.

    Raises:
        TextError: the text cannot be read, or the tokenizer cannot end documents.
        OutputError: the file cannot be written.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if eos is None:
        raise TextError("The tokenizer has no EOS token to put between documents. Give another tokenizer.")
    with held(path.parent, path.name, wait=_WAIT) as space:  # processes of one training need the same file
        if path.exists():
            return
        with space.file(path) as part, part.open("wb") as file:
            for document in text.documents():
                # Where BOS and EOS are the same token, EOS alone separates documents.
                ids = [] if bos in (None, eos) else [bos]
                for piece in document:
                    ids += tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]
                    # Piece by piece: a whole document may not fit into memory.
                    file.write(np.asarray(ids, dtype="<i4").tobytes())
                    ids = []
                file.write(np.asarray([*ids, eos], dtype="<i4").tobytes())


class PackedText:
    """The tokens of a text, on disk, and windows into them.

    Args:
        path: file made by `encode_text`.
        eos: the token that ends documents.
        block: tokens in a block.
        setting: which setting named the text, for messages.

    Raises:
        TextError: there are fewer tokens than one block has.
    """

    def __init__(self, path: Path, eos: int, block: int, setting: str) -> None:
        # Mapped and not read: the tokens of a corpus are larger than memory.
        self.tokens = np.memmap(path, dtype="<i4", mode="r")
        self.eos, self.block = eos, block
        if len(self.tokens) < block:
            raise TextError(
                f"{setting}: the text has {len(self.tokens)} tokens, fewer than one block ({block}). Give more text "
                "or a smaller block."
            )

    def __len__(self) -> int:
        """Whole blocks in one round."""
        return len(self.tokens) // self.block

    def window(self, start: int) -> tuple[Tensor, Tensor]:
        """A block from a place in the ring: token ids and positions, which restart at every document, both (block,)."""
        end = start + self.block
        tokens = self.tokens[start:end]
        if end > len(self.tokens):
            # The ring: a block at the end goes on at the beginning.
            tokens = np.concatenate([tokens, self.tokens[: end - len(self.tokens)]])
        places = np.arange(self.block)
        begins = np.concatenate([[True], tokens[:-1] == self.eos])
        # Positions restart behind every EOS.
        positions = places - np.maximum.accumulate(np.where(begins, places, 0))
        return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(positions)


class TextBlocks(Dataset[tuple[Tensor, Tensor]]):
    """Endless blocks of a text in an order of its own for every epoch; number i is always the same.

    Args:
        text: the tokens.
        seed: of all orders.
    """

    def __init__(self, text: PackedText, seed: int) -> None:
        self.text, self.seed = text, seed
        self._epoch = -1

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(number, len(self.text))
        # One order per epoch, made when its first block is asked for.
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._epoch, self._offset = epoch, int(rng.integers(len(self.text.tokens)))
            self._order = rng.permutation(len(self.text))
        # Another start each epoch, so that other tokens are left over.
        start = self._offset + int(self._order[place]) * self.text.block
        return self.text.window(start % len(self.text.tokens))


class HeldOutBlocks(Dataset[tuple[Tensor, Tensor]]):
    """The whole blocks of a held-out text in order; a rest shorter than a block is left out."""

    def __init__(self, text: PackedText) -> None:
        self.text = text

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return self.text.window(number * self.text.block)
