"""The data module: which rows, which tokens, which errors."""

import json
from pathlib import Path

import pytest
from datasets import Dataset
from tiny_task import ANSWERS, tiny_data, tiny_task, word_tokenizer
from transformers import PreTrainedTokenizerFast

from lightning_icl.data._encoding import bos_ids
from lightning_icl.data._layout import plain_layout, separator_ids
from lightning_icl.data.module import ICLDataModule
from lightning_icl.errors import TaskError
from lightning_icl.models.finding import builtin_folder, find_model
from lightning_icl.models.loading import load_tokenizer


def rows(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_demonstrations_are_the_first_of_the_published_shuffle(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, seed=5)
    train = rows(tmp_path, "train")
    expected = Dataset.from_list(train).add_column("row", list(range(len(train)))).shuffle(seed=5).select(range(5))
    assert list(data.demonstrations.indices) == expected["row"][:]
    assert list(data.demonstrations.labels) == expected["label"][:]


def test_queries_are_the_first_of_the_fixed_shuffle(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, limit=4)
    order = Dataset.from_dict({"row": range(7)}).shuffle(seed=1)["row"][:4]
    assert [query.index for query in data.queries] == order


def test_the_prompt_is_bos_examples_and_separators(tmp_path: Path) -> None:
    data, tokenizer = tiny_data(tmp_path), word_tokenizer()
    train = rows(tmp_path, "train")
    expected = [1]
    for index in data.demonstrations.indices:
        text = f"w3 {train[index]['text']} w4 {ANSWERS['single'][train[index]['label']]}"
        expected += [*tokenizer(text)["input_ids"], 2]
    assert list(data.demonstrations.prefix_token_ids) == expected
    assert data.demonstrations.token_example.count(-1) == 1 + 5


def test_fitting_takes_one_demonstration_a_step_in_prompt_order(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    steps = [batch.tolist() for batch in data.train_dataloader()]
    assert steps == [[[1, *example]] for example in data.demonstrations.examples]


def test_full_context_caps_the_demonstrations(tmp_path: Path) -> None:
    whole = tiny_data(tmp_path)
    longest = max(query.reach for query in whole.queries)
    three = len(whole.demonstrations.bos) + sum(len(example) + 1 for example in whole.demonstrations.examples[:3])
    capped = tiny_data(tmp_path, context_length=three + longest)
    assert (len(capped.demonstrations), capped.demonstrations.requested) == (3, 5)
    assert len(tiny_data(tmp_path, context_length=three + longest - 1).demonstrations) == 2


def test_more_shots_than_rows_uses_all_rows(tmp_path: Path) -> None:
    assert len(tiny_data(tmp_path, shots=50).demonstrations) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 0}, "at least 1"),
        ({"context_length": 8}, "Query .* context has 8"),
        ({"template": "papr"}, "template"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=message):
        tiny_data(tmp_path, **settings)


def test_not_even_one_demonstration_fits(tmp_path: Path) -> None:
    task = tiny_task(tmp_path)
    long = {"text": " ".join(["w11"] * 60), "label": 0}
    (tmp_path / "train.jsonl").write_text(json.dumps(long) + "\n" + json.dumps({**long, "label": 1}) + "\n")
    with pytest.raises(TaskError, match="Not one demonstration fits"):
        ICLDataModule(task, word_tokenizer(), context_length=40)


def test_without_a_bos_token_eos_begins_the_input_and_without_both_nothing() -> None:
    assert bos_ids(word_tokenizer()) == (1,)
    assert bos_ids(word_tokenizer(bos=False)) == (2,)
    bare = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer().backend_tokenizer)
    assert bos_ids(bare) == ()
    with pytest.raises(TaskError, match="newline"):
        separator_ids(bare, "eos")


def test_answers_with_the_same_tokens_are_refused() -> None:
    with pytest.raises(TaskError, match="same tokens"):
        plain_layout(word_tokenizer()).encode("w3", ["w5", " w5"])


def test_an_answer_without_tokens_is_refused() -> None:
    with pytest.raises(TaskError, match="tokenises to nothing"):
        plain_layout(word_tokenizer()).encode("w3", ["w5", " "])


def test_answers_carry_their_leading_space() -> None:
    tokenizer = load_tokenizer(find_model(str(builtin_folder("builtin"))))
    answers = plain_layout(tokenizer).encode("Label:", ["Positive"]).answers
    assert tokenizer.decode(answers[0]) == " Positive"
    assert separator_ids(tokenizer, "newline") == tuple(tokenizer("\n", add_special_tokens=False)["input_ids"])


def test_real_data_gives_the_published_numbers_of_demonstrations(real_data: Path) -> None:
    from lightning_icl.tasks.catalogue import PAPER

    tokenizer = load_tokenizer(find_model(str(builtin_folder("builtin"))))
    for name, queries in {"sst2": 872, "sst5": 1101, "mr": 1066, "subj": 2000, "agnews": 2000, "cb": 56}.items():
        data = ICLDataModule(PAPER[name], tokenizer, context_length=2048, data=real_data)
        assert len(data.queries) == queries
        assert 1 <= len(data.demonstrations) <= 32


def test_texts_are_what_the_tokens_say(tmp_path: Path) -> None:
    data, tokenizer = tiny_data(tmp_path), word_tokenizer()
    encoded = [tuple(tokenizer(text)["input_ids"]) for text in data.demonstration_texts]
    assert encoded == list(data.demonstrations.examples)
    for query in data.queries:
        assert tuple(tokenizer(data.query_texts[query.index])["input_ids"]) == query.prompt_ids
