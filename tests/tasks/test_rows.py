"""Rows from every source, and every mistake in them found with its place."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_icl.errors import TaskError
from lightning_icl.tasks.catalogue import PAPER, resolve_tasks
from lightning_icl.tasks.rows import load_rows
from lightning_icl.tasks.task import FileSource, Task

ROWS = [{"text": "good one", "label": 1}, {"text": "bad one", "label": 0}, {"text": 'fine, "well"', "label": 1}]


def task(folder: Path, suffix: str = "jsonl", **settings: object) -> Task:
    source = FileSource(train=folder / f"train.{suffix}", validation=folder / f"train.{suffix}")
    return Task(name="own", templates={"program": "{text} Label:"}, answers=("no", "yes"), source=source, **settings)


def write(folder: Path, text: str, suffix: str = "jsonl") -> None:
    (folder / f"train.{suffix}").write_text(text)


def test_jsonl_csv_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path, "".join(json.dumps(row) + "\n\n" for row in ROWS))
    write(tmp_path, 'text,label\ngood one,1\nbad one,0\n"fine, ""well""",1\n', "csv")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "train.parquet")
    loaded = [load_rows(task(tmp_path, suffix)).train for suffix in ("jsonl", "csv", "parquet")]
    for rows in loaded:
        assert [(row.index, row.fields["text"], row.label) for row in rows] == [
            (number, row["text"], row["label"]) for number, row in enumerate(ROWS)
        ]


def test_labels_as_text_need_their_names(tmp_path: Path) -> None:
    write(tmp_path, '{"text": "a", "label": "neg"}\n{"text": "b", "label": "pos"}\n')
    rows = load_rows(task(tmp_path, label_names=("neg", "pos"))).train
    assert [row.label for row in rows] == [0, 1]
    with pytest.raises(TaskError, match=r"line 1: the label 'neg' .*label_names"):
        load_rows(task(tmp_path))


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        ("", "jsonl", "is empty"),
        ('{"text": "a", "label": 0}\n{"text": "b", "label": 0}\n', "jsonl", "all 2 rows .* 'no'"),
        ('{"text": "a", "label": 0}\n{"label": 1}\n', "jsonl", "line 2: the row lacks the field 'text'"),
        ('{"text": "a", "label": 0}\n{"txt": "b", "label": 1}\n', "jsonl", "Did you mean 'txt'"),
        ('{"text": "a", "label": 0}\n{"text": "b"}\n', "jsonl", "line 2: the row lacks the field 'label'"),
        ('{"text": "a", "label": 0}\n{"text": "b", "label": 2}\n', "jsonl", "line 2: the label 2 is out of range"),
        ('{"text": "a", "label": 0}\n{"text": "b", "label": -1}\n', "jsonl", "label -1 is out of range"),
        ('{"text": "a", "label": 0.5}\n', "jsonl", "label 0.5"),
        ('{"text": "a", "label": true}\n', "jsonl", "label True"),
        ('{"text": "a", "label": 0}\n{"text": "b", \n', "jsonl", "line 2: malformed JSON"),
        ('["a", 0]\n', "jsonl", "line 1: a row must be a JSON object"),
        ("text,label\na,0\nb\n", "csv", "line 3: 1 cells under 2"),
        ('text,label\na,0\n"b,1\n', "csv", "malformed CSV"),
        ("no parquet", "parquet", "cannot be read as Parquet"),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, suffix: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, text, suffix)
    with pytest.raises(TaskError, match=message):
        load_rows(task(tmp_path, suffix))


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="cannot be read"):
        load_rows(task(tmp_path))
    with pytest.raises(TaskError, match="is no folder"):
        load_rows(PAPER["sst2"], tmp_path / "none")
    with pytest.raises(TaskError, match=r"train.jsonl, train.csv, train.parquet"):
        load_rows(PAPER["sst2"], tmp_path)


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sst2").mkdir()
    for suffix in ("jsonl", "csv"):
        (tmp_path / "sst2" / f"train.{suffix}").write_text("")
    with pytest.raises(TaskError, match="both hold"):
        load_rows(PAPER["sst2"], tmp_path)


def test_the_hub_out_of_reach_says_what_to_do() -> None:
    with pytest.raises(TaskError, match=r"--data FOLDER"):
        load_rows(PAPER["sst2"])


def test_built_in_rows_are_the_same_every_time_and_their_splits_share_nothing() -> None:
    for built_in in resolve_tasks("builtin").values():
        first, second = load_rows(built_in), load_rows(built_in)
        assert first == second
        texts = [
            {tuple(str(v) for k, v in row.fields.items() if k != "label") for row in split}
            for split in (first.train, first.queries)
        ]
        assert not texts[0] & texts[1]
        assert {row.label for row in first.train} == set(range(len(built_in.answers)))


def test_real_rows_have_the_label_counts_of_their_readme(real_data: Path) -> None:
    labels = [row.label for row in load_rows(PAPER["cb"], real_data).queries]
    assert [labels.count(label) for label in range(3)] == [23, 28, 5]
