"""The tokenizer of a pretrained model, where its package is installed: answers, separator and turns of a chat."""

import pytest
from transformers import PreTrainedTokenizerBase

from lightning_icl.data._chat import chat_layout
from lightning_icl.data._layout import plain_layout
from lightning_icl.models.finding import find_model
from lightning_icl.models.loading import load_tokenizer
from lightning_icl.models.packaged import installed_pieces
from lightning_icl.tasks.catalogue import PAPER, resolve_tasks
from lightning_icl.tasks.rows import load_rows

# The other packaged model's 262,144 tokens take half a minute to read; it has no chat template.
NAME = "smollm2-135m"
pytestmark = pytest.mark.skipif(not installed_pieces(NAME), reason="lightning-icl[smollm2] is not installed")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(find_model(NAME))


def test_answers_have_the_tokens_of_running_text(tokenizer: PreTrainedTokenizerBase) -> None:
    layout = plain_layout(tokenizer)
    for task in (*PAPER.values(), *resolve_tasks("builtin").values()):
        prompt = task.template().replace("{", "").replace("}", "")
        encoded = layout.encode(prompt, [*task.answers, "5", "日本", "😀"])
        assert not encoded.joined
        for word, ids in zip(task.answers, encoded.answers, strict=False):
            assert tokenizer(f"{prompt} {word}", add_special_tokens=False)["input_ids"] == [*encoded.prompt, *ids]


def test_a_newline_closes_demonstrations_since_its_eos_ends_a_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    layout = plain_layout(tokenizer)
    assert (layout.separator, tokenizer.decode(list(layout.sep))) == ("newline", "\n")
    assert plain_layout(tokenizer, "eos").sep == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_a_chat_is_what_its_template_writes(tokenizer: PreTrainedTokenizerBase) -> None:
    layout = chat_layout(tokenizer)
    task = resolve_tasks("tiny-sst2")["tiny-sst2"]
    rows = load_rows(task).train[:4]
    turns = [(task.prompt(row.fields), row.options[row.label]) for row in rows]
    query, ids = turns.pop()[0], list(layout.bos)
    for prompt, answer in turns:
        encoded = layout.encode(prompt, [answer])
        ids += [*encoded.prompt, *encoded.answers[0], *layout.sep]
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    messages.append({"role": "user", "content": query})
    written = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert [*ids, *layout.encode(query, []).prompt] == written
