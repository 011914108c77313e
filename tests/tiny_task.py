"""A tiny task on real files, and a word-level tokenizer that knows its words: the whole way from files to results."""

import json
import random
from pathlib import Path

from tiny_models import VOCABULARY
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_icl.data.module import ICLDataModule
from lightning_icl.tasks._choice import MultipleChoice
from lightning_icl.tasks.task import FileSource, Task

ANSWERS = {"single": ("w5", "w6", "w7"), "multi": ("w5 w6", "w7", "w5 w8 w9")}


CHAT = (
    "w90 w91 w92 {% for message in messages %}"
    "{{ 'w93' if message.role == 'user' else 'w94' }} {{ message.content }} w95 w96 {% endfor %}"
    "{% if add_generation_prompt %}w94 {% endif %}"
)
"""A template with a header of three words and two that close a turn, all in the vocabulary of `word_tokenizer`."""


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of words with a chat template."""
    tokenizer = word_tokenizer()
    tokenizer.chat_template = CHAT
    return tokenizer


def word_tokenizer(bos: bool = True) -> PreTrainedTokenizerFast:
    """Every word is one token: `w3` has number 3."""
    words = ["<pad>", "<s>", "</s>", *(f"w{number}" for number in range(3, VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "</s>", "pad_token": "<pad>", **({"bos_token": "<s>"} if bos else {})}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def write_rows(folder: Path, labels: int = 3, train: int = 12, queries: int = 7, seed: int = 0) -> FileSource:
    """Two JSON Lines files of random sentences of different lengths; every label occurs in both."""
    rng = random.Random(seed)
    paths = {}
    for split, count in (("train", train), ("validation", queries)):
        paths[split] = folder / f"{split}.jsonl"
        with paths[split].open("w") as file:
            for number in range(count):
                words = " ".join(f"w{rng.randrange(10, VOCABULARY)}" for _ in range(rng.randrange(3, 13)))
                file.write(json.dumps({"text": words, "label": number % labels}) + "\n")
    return FileSource(**paths)


def write_choices(folder: Path, train: int = 12, queries: int = 7, seed: int = 0) -> FileSource:
    """Two JSON Lines files of questions with two to five options of one to six words each."""
    rng = random.Random(seed)

    def words(least: int, most: int) -> str:
        return " ".join(f"w{rng.randrange(10, VOCABULARY)}" for _ in range(rng.randint(least, most)))

    paths = {}
    for split, count in (("train", train), ("validation", queries)):
        paths[split] = folder / f"{split}.jsonl"
        with paths[split].open("w") as file:
            for number in range(count):
                options = [words(1, 6) for _ in range(2 + number % 4)]
                row = {"text": words(3, 12), "options": options, "label": rng.randrange(len(options))}
                file.write(json.dumps(row) + "\n")
    return FileSource(**paths)


def tiny_task(folder: Path, answers: str = "single") -> Task:
    if answers == "choice":
        source = write_choices(folder)
        return MultipleChoice(
            name="tiny", templates={"program": "w3 {text} w4"}, option_fields=("options",), source=source
        )
    return Task(
        name="tiny",
        templates={"program": "w3 {text} w4"},
        answers=ANSWERS[answers],
        source=write_rows(folder, labels=len(ANSWERS[answers])),
    )


def tiny_data(folder: Path, answers: str = "single", **settings: object) -> ICLDataModule:
    """Five demonstrations and seven queries."""
    chosen = {"context_length": 256, "shots": 5, "batch_tokens": 64, **settings}
    tokenizer = chat_tokenizer() if settings.get("chat") else word_tokenizer()
    return ICLDataModule(tiny_task(folder, answers), tokenizer, **chosen)
