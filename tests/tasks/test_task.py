"""Templates, the catalogue, and tasks of a user's own."""

import json
from pathlib import Path

import pytest

from lightning_icl.errors import TaskError
from lightning_icl.tasks._yaml_task import read_task
from lightning_icl.tasks.catalogue import PAPER, TASKS, resolve_tasks
from lightning_icl.tasks.template import fill_template, template_fields


@pytest.mark.parametrize("text", ["{0}", "{text.__class__}", "{label!r}", "{{}}", "%s", "{text}", "\\1", "{x:>10}"])
def test_text_from_a_data_set_is_never_interpreted(text: str) -> None:
    assert fill_template("Sentence: {text} Label:", {"text": text}) == f"Sentence: {text} Label:"


def test_line_breaks_inside_a_field_become_one_space() -> None:
    assert fill_template("{text}!", {"text": "one\r\n\n two\nthree"}) == "one two three!"


def test_a_missing_field_names_the_nearest() -> None:
    with pytest.raises(TaskError, match="Did you mean 'sentence'"):
        fill_template("{sentense}", {"sentence": "a"})


def test_templates_print_what_the_paper_and_its_program_print() -> None:
    row = {"premise": "It rains.", "hypothesis": "it is wet"}
    assert PAPER["cb"].prompt(row) == "It rains. Question: it is wet. True, False, or Neither? Answer:"
    assert PAPER["cb"].prompt(row, "paper") == "It rains. Question: it is wet True, False, or Neither? Answer:"
    classify = "Classify the news articles into the categories of World, Sports, Business, and Technology."
    assert PAPER["agnews"].prompt({"text": "x"}) == f"{classify} Article: x Answer:"
    assert PAPER["agnews"].prompt({"text": "x"}, "paper") == f"{classify} News: x Type:"


def test_every_task_of_the_paper_has_its_published_seed_and_rate() -> None:
    assert PAPER["sst5"].seeds == {"1.3B": 5, "2.7B": 5}
    assert PAPER["agnews"].learning_rates["2.7B"] == 0.2
    assert PAPER["mr"].learning_rates["default"] == PAPER["mr"].learning_rates["1.3B"] == 0.003


def test_names_groups_and_mistakes() -> None:
    assert list(resolve_tasks("paper")) == ["sst2", "sst5", "mr", "subj", "agnews", "cb"]
    assert list(resolve_tasks("trec, cb")) == ["trec", "cb"]
    with pytest.raises(TaskError, match="Did you mean 'sst2'"):
        resolve_tasks("sst-2")
    with pytest.raises(TaskError, match="twice"):
        resolve_tasks("cb,paper")


def test_all_variants_of_a_task_use_the_same_fields() -> None:
    for task in TASKS.values():
        assert len({tuple(template_fields(template)) for template in task.templates.values()}) == 1


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "tickets.yaml"
    content = {
        "templates": {"short": "{text} Team:", "long": "Ticket: {text} Team:"},
        "answers": ["billing", "support"],
        "label_field": "team",
        "label_names": ["bill", "supp"],
        "learning_rate": 0.01,
        "rows": {"train": "a.jsonl", "validation": "b.csv"},
    }
    path.write_text(json.dumps(content))  # JSON is YAML
    task = read_task(path)
    assert task.name == "tickets"
    assert task.prompt({"text": "x"}) == "x Team:"
    assert task.prompt({"text": "x"}, "long") == "Ticket: x Team:"
    assert task.source.train == tmp_path / "a.jsonl"
    assert task.learning_rates == {"default": 0.01, "any": 0.01}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("template: '{text}'\nanswer: [a, b]", "Did you mean 'answers'"),
        ("template: '{text}'\nanswers: [a]", "at least two"),
        ("template: '{text}'\nanswers: [yes, no]", "in quotes"),
        ("template: '{text}'\nanswers: [a, a]", "twice"),
        ("template: 'no field'\nanswers: [a, b]", "at least one {field}"),
        ("answers: [a, b]", "either `template` or `templates`"),
        ("template: '{text}'\nanswers: [a, b]\nlearning_rate: fast", "positive number"),
        ("template: '{text}'\nanswers: [a, b]\nrows: here", "`rows`"),
        ("- a\n- b", "keys and values"),
        ("template: [", "cannot be read"),
    ],
)
def test_mistakes_in_a_task_file_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(TaskError, match=message):
        read_task(path)
