"""A small tokenizer of every kind that causal language models have, trained on a few sentences."""

import json
from collections.abc import Callable
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
SENTENCES = [
    "Sentence: a warm and funny film with a great cast. Label: Positive",
    "Sentence: dull, slow and far too long; the worst film of 2011. Label: Negative",
    "Review: the story of a small town in 1984, told with care. Sentiment: Positive",
    "Review: nothing here that has not been done better before. Sentiment: Negative",
    "Article: shares of the company fell 7 percent on Monday. Answer: Business",
    "Article: the team won the cup for the third time in 12 years. Answer: Sports",
    "Question: does the sun rise in the east? Answer: yes. user assistant system",
] * 3
LETTERS = sorted({letter for sentence in SENTENCES for letter in sentence} | set("\n▁0123456789"))
BYTES = [f"<0x{number:02X}>" for number in range(256)]


def _trained_pieces(pre_tokenizer: object, size: int = 400) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-pair encoding with byte fallback, and two blanks as one piece."""
    trainer = Tokenizer(models.BPE())
    trainer.normalizer = normalizers.Replace(" ", "▁")
    if pre_tokenizer is not None:
        trainer.pre_tokenizer = pre_tokenizer
    trainer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=size, initial_alphabet=LETTERS, show_progress=False)
    )
    learnt = json.loads(trainer.to_str())["model"]
    pieces = [*SPECIAL, *BYTES, *learnt["vocab"], "▁▁"]
    merges = [tuple(merge) for merge in learnt["merges"]] + [("▁", "▁")]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}, merges


def _sentencepiece(normalizer: object, pre_tokenizer: object = None, trained_by: object = "words") -> Tokenizer:
    by_words = pre_tokenizers.Metaspace(prepend_scheme="never")
    vocabulary, merges = _trained_pieces(by_words if trained_by == "words" else None)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _llama_2() -> Tokenizer:
    return _sentencepiece(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))


def _mistral() -> Tokenizer:
    return _sentencepiece(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))


def _gemma() -> Tokenizer:
    return _sentencepiece(normalizers.Replace(" ", "▁"))


def _across_words() -> Tokenizer:
    """Pieces may hold several words, so that a prompt's end and an answer's beginning may be one."""
    return _sentencepiece(normalizers.Replace(" ", "▁"), trained_by="sentences")


def _gpt2() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=LETTERS, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=LETTERS, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": _gpt2,
    "llama-2": _llama_2,
    "mistral": _mistral,
    "gemma": _gemma,
    "unigram": _unigram,
    "wordpiece": _wordpiece,
    "across-words": _across_words,
}


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a kind, with BOS, EOS and the tokens of a chat as special ones."""
    return PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
