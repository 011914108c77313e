"""Text to tokens, for every kind of tokenizer: answers where they stand, and rows that spell special tokens."""

import json
from pathlib import Path

import pytest
from tiny_task import word_tokenizer
from tokenizer_kinds import KINDS, tokenizer_of
from transformers import PreTrainedTokenizerBase

from lightning_icl.data._encoding import encode, special_tokens
from lightning_icl.data._layout import plain_layout
from lightning_icl.data.module import ICLDataModule
from lightning_icl.errors import TaskError
from lightning_icl.models.finding import builtin_folder, find_model
from lightning_icl.tasks.task import FileSource, Task

PROMPTS = [
    "Sentence: a warm film. Label:",
    "Review: 1984 (5 of 7) Sentiment:",
    "café 日本 😀",
    "it's",
    "user\nassistant",
]
ANSWERS = ["Positive", "no", "5", "2011", "日本", "😀", "élan", "(a)", "a b", "'s"]


def plain(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_has_the_tokens_that_it_has_behind_its_prompt(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    layout, joined = plain_layout(tokenizer), 0
    for prompt in PROMPTS:
        start = plain(tokenizer, prompt)
        for word in ANSWERS:
            encoded, whole = layout.encode(prompt, [word], unknown=True), plain(tokenizer, f"{prompt} {word}")
            assert encoded.prompt == start
            if whole[: len(start)] == start:
                assert (start + encoded.answers[0], encoded.joined) == (whole, ())
            else:
                joined += 1
                assert encoded.joined == (word,)
                assert tokenizer.decode(encoded.answers[0]).strip() == word
    assert (joined > 0) == (kind == "across-words")


@pytest.mark.parametrize("kind", ["llama-2", "mistral", "gemma"])
@pytest.mark.parametrize("word", ["5", "日", "😀"])
def test_no_answer_brings_two_blanks(kind: str, word: str) -> None:
    tokenizer = tokenizer_of(kind)
    (answer,) = plain_layout(tokenizer).encode("Label:", [word]).answers
    pieces = tokenizer.convert_ids_to_tokens(list(answer))
    assert pieces[0] == "▁"
    assert not any(piece.startswith("▁") for piece in pieces[1:])


@pytest.mark.parametrize("name", ["gpt2", "builtin"])
def test_byte_level_answers_are_those_encoded_apart_as_the_papers_program_does(name: str) -> None:
    tokenizer = tokenizer_of("gpt2")
    if name == "builtin":
        from lightning_icl.models.loading import load_tokenizer

        tokenizer = load_tokenizer(find_model(str(builtin_folder("builtin"))))
    for prompt in PROMPTS:
        answers = plain_layout(tokenizer).encode(prompt, ANSWERS).answers
        assert answers == tuple(plain(tokenizer, f" {word}") for word in ANSWERS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unigram"])
@pytest.mark.parametrize("spelt", ["<s>", "</s>", "<|im_end|>", "a <s> b</s>"])
def test_special_tokens_spelt_in_text_are_text(kind: str, spelt: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = encode(tokenizer, f"film {spelt} cast", special_tokens(tokenizer))
    emitted = {special_tokens(tokenizer)[number] for number in ids if number in special_tokens(tokenizer)}
    assert emitted <= {"<unk>"}
    if kind != "wordpiece":  # which knows neither < nor |
        assert spelt.replace(" ", "") in tokenizer.decode(ids).replace(" ", "")


def test_reading_text_leaves_the_tokenizer_as_it_was() -> None:
    tokenizer = tokenizer_of("gpt2")
    encode(tokenizer, "a <s>", special_tokens(tokenizer))
    assert plain(tokenizer, "<s>") == (tokenizer.bos_token_id,)


def test_special_tokens_that_are_words_of_the_vocabulary_are_refused_with_their_row(tmp_path: Path) -> None:
    rows = [{"text": "w10 w11", "label": 0}, {"text": "w12 </s> w13", "label": 1}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = FileSource(train=tmp_path / "rows.jsonl", validation=tmp_path / "rows.jsonl")
    task = Task(name="own", templates={"program": "{text} w4"}, answers=("w5", "w6"), source=source)
    with pytest.raises(TaskError, match=r"rows.jsonl, line 2: the text spells '</s>', a special token"):
        ICLDataModule(task, word_tokenizer(), context_length=64)


def test_a_joined_boundary_is_told_once_an_answer(tmp_path: Path) -> None:
    rows = [{"text": f"a film of {number}", "label": number % 2} for number in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = FileSource(train=tmp_path / "rows.jsonl", validation=tmp_path / "rows.jsonl")
    task = Task(name="own", templates={"program": "{text} Label:"}, answers=("Positive", "no"), source=source)
    data = ICLDataModule(task, tokenizer_of("across-words"), context_length=256)
    assert data.joined_answers == ("Positive", "no")
    assert not ICLDataModule(task, tokenizer_of("gemma"), context_length=256).joined_answers


def test_queries_that_repeat_a_demonstration_are_counted(tmp_path: Path) -> None:
    rows = {"train": ["w10", "w11", "w12"], "validation": ["w12", "w13", "w10", "w12"]}
    for split, texts in rows.items():
        lines = [json.dumps({"text": text, "label": number % 2}) + "\n" for number, text in enumerate(texts)]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    source = FileSource(train=tmp_path / "train.jsonl", validation=tmp_path / "validation.jsonl")
    task = Task(name="own", templates={"program": "{text} w4"}, answers=("w5", "w6"), source=source)
    assert ICLDataModule(task, word_tokenizer(), context_length=256).repeated_queries == 3
