"""A task of random words on real files: what a benchmark asks where the whole way from rows to results is measured."""

import random
from pathlib import Path

from transformers import AutoTokenizer

from lightning_icl.data.module import ICLDataModule
from lightning_icl.models.finding import builtin_folder
from lightning_icl.tasks.task import FileSource, Task


def random_words(
    folder: Path, queries: int, *, words: int = 14, shots: int = 32, seed: int = 0, training: int | None = None
) -> ICLDataModule:
    """Demonstrations and queries of two labels, for models with 2,048 positions.

    Args:
        folder: where the rows are written to.
        queries: how many.
        words: of a sentence; template and label add five tokens.
        shots: demonstrations.
        seed: of the words.
        training: training rows; without it twice the shots.
    """
    rng = random.Random(seed)
    tokenizer = AutoTokenizer.from_pretrained(builtin_folder("builtin"))
    vocabulary = [word for word in tokenizer.get_vocab() if word.isalpha() and word.islower()]
    for split, count in (("train", training or 2 * shots), ("validation", queries)):
        lines = []
        for number in range(count):
            text = " ".join(rng.choices(vocabulary, k=words))
            lines.append(f'{{"text": "{text}", "label": {number % 2}}}\n')
        (folder / f"{split}.jsonl").write_text("".join(lines))
    task = Task(
        name="random-words",
        templates={"program": "Sentence: {text} Label:"},
        answers=("Negative", "Positive"),
        source=FileSource(train=folder / "train.jsonl", validation=folder / "validation.jsonl"),
    )
    return ICLDataModule(task, tokenizer, context_length=2048, shots=shots)
