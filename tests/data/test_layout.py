"""What closes a demonstration: the right separator for a tokenizer, and what cannot be one."""

from pathlib import Path

import pytest
from tiny_task import tiny_data, word_tokenizer
from tokenizer_kinds import KINDS, tokenizer_of
from transformers import PreTrainedTokenizerFast

from lightning_icl.data._layout import plain_layout, separator_ids
from lightning_icl.errors import TaskError
from lightning_icl.models.finding import BUILTIN, find_model
from lightning_icl.models.loading import load_tokenizer


def bare(kind: str, **settings: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer_of(kind).backend_tokenizer, **settings)
    return tokenizer


def test_a_newline_closes_demonstrations_where_eos_ends_a_turn_and_eos_elsewhere() -> None:
    assert plain_layout(bare("gpt2", eos_token="</s>")).separator == "eos"
    assert plain_layout(bare("gpt2", eos_token="</s>", chat_template="{{ messages }}")).separator == "newline"
    assert plain_layout(bare("gpt2")).separator == "newline"
    assert plain_layout(bare("wordpiece", eos_token="</s>", chat_template="{{ messages }}")).separator == "eos"


@pytest.mark.parametrize("name", BUILTIN)
def test_the_built_in_models_have_the_separator_of_the_paper(name: str) -> None:
    layout = plain_layout(load_tokenizer(find_model(name)))
    assert (layout.separator, layout.sep) == ("eos", (layout.tokenizer.eos_token_id,))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wordpiece"])
@pytest.mark.parametrize(("separator", "text"), [("newline", "\n"), ("\n\n", "\n\n"), (" ; ", " ; ")])
def test_a_separator_has_the_tokens_it_has_behind_an_answer(kind: str, separator: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    whole = tokenizer(f"Label: Positive{text}", add_special_tokens=False)["input_ids"]
    ids = list(separator_ids(tokenizer, separator))
    assert whole[-len(ids) :] == ids or kind == "across-words"
    if kind != "unigram":  # which knows neither a newline nor a semicolon
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) in (text, text.rstrip("\n") + text)


def test_a_special_token_may_be_the_separator() -> None:
    tokenizer = tokenizer_of("gemma")
    assert separator_ids(tokenizer, "<|im_end|>") == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


@pytest.mark.parametrize("separator", ["newline", "\n", " ", ""])
def test_a_separator_of_no_tokens_is_refused(separator: str) -> None:
    with pytest.raises(TaskError, match="tokenises to nothing"):
        plain_layout(tokenizer_of("wordpiece"), separator)


def test_half_a_surrogate_pair_is_no_separator() -> None:
    with pytest.raises(TaskError, match="is no text"):
        plain_layout(tokenizer_of("gpt2"), "\ud800")


def test_the_separator_stands_behind_every_demonstration(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, separator=" w90 w91")
    ids = word_tokenizer()("w90 w91")["input_ids"]
    expected = [1]
    for example in data.demonstrations.examples:
        expected += [*example, *ids]
    assert list(data.demonstrations.prefix_token_ids) == expected
