"""Multiple-choice rows: the hub's fields, a user's own file, and every mistake with its place."""

import json
from pathlib import Path

import pytest

from lightning_icl.errors import TaskError
from lightning_icl.tasks._choice import MultipleChoice
from lightning_icl.tasks._yaml_task import read_task
from lightning_icl.tasks.catalogue import TASKS, resolve_tasks
from lightning_icl.tasks.rows import load_rows
from lightning_icl.tasks.task import FileSource

ARC = {"question": "Which?", "choices": {"text": ["sun", "moon"], "label": ["A", "B"]}, "answerKey": "B"}
OTHER = {"question": "What?", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "1"}


def task(folder: Path, **settings: object) -> MultipleChoice:
    chosen: dict = {"option_fields": ("choices.text",), "option_labels": "choices.label", "label_field": "answerKey"}
    chosen["source"] = FileSource(train=folder / "rows.jsonl", validation=folder / "rows.jsonl")
    return MultipleChoice(name="own", templates={"program": "{question}"}, **{**chosen, **settings})


def load(folder: Path, *rows: dict, **settings: object) -> list[tuple[tuple[str, ...], int]]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [(row.options, row.label) for row in load_rows(task(folder, **settings)).queries]


def test_rows_bring_their_own_options_and_names_for_them(tmp_path: Path) -> None:
    assert load(tmp_path, ARC, OTHER) == [(("sun", "moon"), 1), (("a", "b", "c"), 0)]


def test_options_in_records_or_in_a_field_each_or_by_number(tmp_path: Path) -> None:
    records = {**ARC, "choices": [{"text": "sun", "label": "A"}, {"text": "moon", "label": "B"}]}
    assert load(tmp_path, records, OTHER)[0] == (("sun", "moon"), 1)
    by_number = {"option_fields": ("choices.text",), "option_labels": "", "label_field": "label"}
    assert load(tmp_path, {**ARC, "label": "1"}, {**OTHER, "label": 2}, **by_number)[1] == (("a", "b", "c"), 2)
    named = {**by_number, "label_names": ("1", "2", "3")}
    assert load(tmp_path, {**ARC, "label": "1"}, {**OTHER, "label": "3"}, **named)[1] == (("a", "b", "c"), 2)


def test_a_table_with_fewer_options_in_some_rows_has_empty_cells_at_their_end(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,one,two,three,answer\nWhich?,x,y,,1\nWhat?,x,y,z,2\n")
    source = FileSource(train=tmp_path / "rows.csv", validation=tmp_path / "rows.csv")
    own = task(tmp_path, option_fields=("one", "two", "three"), option_labels="", label_field="answer", source=source)
    assert [(row.options, row.label) for row in load_rows(own).train] == [(("x", "y"), 1), (("x", "y", "z"), 2)]


def test_line_breaks_and_outer_spaces_of_an_option_go(tmp_path: Path) -> None:
    messy = {**ARC, "choices": {"text": [" the\n sun ", "moon"], "label": ["A", "B"]}}
    assert load(tmp_path, messy, OTHER)[0] == (("the sun", "moon"), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": {"text": ["sun", "sun "], "label": ["A", "B"]}}, "option 'sun' occurs twice"),
        ({"choices": {"text": ["sun"], "label": ["A"]}, "answerKey": "A"}, "1 options .* two or more"),
        ({"choices": {"text": ["sun", " "], "label": ["A", "B"]}}, r"option 1 \(counted from 0\) is empty"),
        ({"choices": {"text": ["sun", None], "label": ["A", "B"]}}, "option 1 .* is empty"),
        ({"answerKey": "C"}, "label 'C' must be one of A, B"),
        ({"answerKey": 1}, "label 1 must be one of A, B"),
        ({"answerKey": None}, "has no label"),
        ({"choices": {"text": ["sun", "moon"], "label": ["A"]}}, "2 options, but 1 labels"),
        ({"choices": {"text": ["sun", "moon"], "label": ["B", "B"]}}, "holds a label twice"),
        ({"choices": {"texts": ["sun", "moon"], "label": ["A", "B"]}}, "lacks the field 'choices.text'.* mean 'texts'"),
        ({"choices": {"text": "sun", "label": ["A", "B"]}}, "'choices.text' must hold a list"),
        ({"choices": "sun"}, "lacks the field 'choices.text'"),
    ],
)
def test_mistakes_are_named_with_their_place(change: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=f"rows.jsonl, line 2: .*{message}"):
        load(tmp_path, OTHER, {**ARC, **change})


def test_a_number_beyond_the_rows_own_options_is_refused(tmp_path: Path) -> None:
    by_number = {"option_labels": "", "label_field": "label"}
    with pytest.raises(TaskError, match="line 2: the label 2 is out of range: labels go from 0 to 1"):
        load(tmp_path, {**OTHER, "label": 2}, {**ARC, "label": 2}, **by_number)


def test_the_catalogues_tasks_read_the_hubs_fields(real_data: Path) -> None:
    arc, piqa = (load_rows(TASKS[name], real_data) for name in ("arc_easy", "piqa"))
    counts = [len(row.options) for row in arc.queries]
    assert [counts.count(number) for number in (3, 4, 5)] == [1, 567, 2]
    assert [row.label for row in piqa.queries].count(1) == 259
    raw = json.loads((real_data / "arc_easy" / "validation.jsonl").read_text().splitlines()[7])
    assert raw["choices"]["label"][arc.queries[7].label] == raw["answerKey"]


def test_the_momentum_group_is_the_six_tasks_of_the_papers_section_5() -> None:
    assert list(resolve_tasks("momentum")) == ["sst5", "imdb", "mr", "cb", "arc_easy", "piqa"]
    assert TASKS["imdb"].prompt({"text": "Fine."}) == "Review: Fine. Sentiment:"


def test_a_multiple_choice_task_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "quiz.yaml"
    path.write_text(
        "template: '{question} Answer:'\noptions: choices.text\noption_labels: choices.label\n"
        "label_field: answerKey\nrows: {train: rows.jsonl, validation: rows.jsonl}\n"
    )
    (tmp_path / "rows.jsonl").write_text(json.dumps(ARC) + "\n" + json.dumps(OTHER) + "\n")
    assert [row.label for row in load_rows(read_task(path)).train] == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("options: a\nanswers: [x, y]", "either `answers`"),
        ("label_field: a", "either `answers`"),
        ("options: []", "`options` must be a field"),
        ("options: [a, 3]", "`options` must be a field"),
        ("options: [a, a]", "holds a field twice"),
        ("answers: [x, y]\noption_labels: b", "needs `options`"),
    ],
)
def test_mistakes_in_the_task_file_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"template: '{{text}}'\n{text}\n")
    with pytest.raises(TaskError, match=message):
        read_task(path)
