"""Rows as people have them: what is read alike from every kind of file, and every mistake named with its place."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outside_case import Case, check_case

SHOW = "compare --task own.yaml --shots 2 --show-prompt"
GOOD = '{"text": "fine", "label": 1}\n{"text": "poor", "label": 0}\n'


def own(rows: str | bytes, suffix: str = "jsonl", *, fields: str = "answers: ['no', so]") -> dict[str, str | bytes]:
    """A task file, good training rows, and the rows in question as queries."""
    source = f"rows: {{train: train.jsonl, validation: rows.{suffix}}}"
    return {
        "own.yaml": f"template: '{{text}} Label:'\n{fields}\n{source}\n",
        "train.jsonl": GOOD,
        f"rows.{suffix}": rows,
    }


def jsonl(*rows: str) -> dict[str, str | bytes]:
    return own(GOOD + "\n".join(rows) + "\n")


def table(text: str, *, fields: str = "answers: ['no', so]") -> dict[str, str | bytes]:
    return own(text, "csv", fields=fields)


def parquet(*rows: Mapping[str, object], names: list[str] | None = None) -> dict[str, str | bytes]:
    made = pa.Table.from_pylist([dict(row) for row in rows])
    buffer = io.BytesIO()
    pq.write_table(made.rename_columns(names) if names else made, buffer)
    return own(buffer.getvalue(), "parquet")


def labelled(literal: str) -> dict[str, str | bytes]:
    """A third row whose label is written so."""
    return jsonl('{"text": "x", "label": ' + literal + "}")


def pipe(folder: Path) -> None:
    (folder / "rows.jsonl").unlink()
    os.mkfifo(folder / "rows.jsonl")


NAMED = "answers: ['no', so]\nlabel_names: ['1', '0']"
THIRD = "rows.jsonl, line 3:"

# fmt: off
REFUSED = [
    ("a label that is NaN", labelled("NaN"), [THIRD, "no label"]),
    ("an infinite label", labelled("Infinity"), [THIRD, "label inf"]),
    ("a label of minus infinity", labelled("-Infinity"), [THIRD, "label -inf"]),
    ("a superscript as label", labelled('"²"'), [THIRD, "label '²'"]),
    ("two signs before a label", labelled('"--1"'), [THIRD, "label '--1'"]),
    ("a label of 5,000 digits", labelled("1" * 5000), [THIRD, "digits"]),
    ("a label of 5,000 digits as text", labelled('"' + "1" * 5000 + '"'), [THIRD, "…"]),
    ("a label that is a fraction", labelled("0.5"), [THIRD, "label 0.5", "from 0 to 1"]),
    ("a label that is a list", labelled("[1]"), [THIRD, "label [1]"]),
    ("a label beyond the answers", labelled("2"), [THIRD, "out of range"]),
    ("a label that is true", labelled("true"), [THIRD, "label True"]),
    ("a label that is null", labelled("null"), [THIRD, "no label"]),
    ("a label that is empty", labelled('""'), [THIRD, "no label"]),
    ("a label in Arabic digits", labelled('"١"'), [THIRD, "label '١'"]),
    ("no label", jsonl('{"text": "x", "labels": 1}'), [THIRD, "lacks the field 'label'", "Did you mean 'labels'"]),
    ("a text that is NaN", jsonl('{"text": NaN, "label": 1}'), [THIRD, "'text' is empty"]),
    ("a text that is null", jsonl('{"text": null, "label": 1}'), [THIRD, "'text' is empty"]),
    ("a text of blanks", jsonl('{"text": "  ", "label": 1}'), [THIRD, "'text' is empty"]),
    ("an infinite text", jsonl('{"text": Infinity, "label": 1}'), [THIRD, "'text'", "finite"]),
    ("a list as text", jsonl('{"text": ["a"], "label": 1}'), [THIRD, "'text'", "neither text"]),
    ("half a surrogate pair in the text", jsonl('{"text": "a\\ud83d", "label": 1}'), [THIRD, "surrogate"]),
    ("a field twice in a row", jsonl('{"text": "x", "text": "y", "label": 1}'), [THIRD, "'text' occurs twice"]),
    ("JSON nested without end", jsonl("[" * 100_000), [THIRD, "nested too deeply"]),
    ("a list in place of a row", jsonl('["x", 1]'), [THIRD, "must be a JSON object, not list"]),
    ("a line cut off", jsonl('{"text": "x", "lab'), [THIRD, "malformed JSON"]),
    ("text that is not UTF-8", own(b'{"text": "\xff", "label": 1}\n'), ["rows.jsonl", "UTF-8"]),
    ("rows in UTF-16", own(GOOD.encode("utf-16")), ["rows.jsonl", "UTF-8"]),
    ("an empty file", own(""), ["rows.jsonl", "is empty"]),
    ("a missing text in a table", table("text,label\na,0\n,1\n"), ["rows.csv, line 3", "'text' is empty"]),
    ("a missing label in a table", table("text,label\na,0\nb,\n"), ["rows.csv, line 3", "no label"]),
    ("a column twice", table("text,label,text\na,0,b\n"), ["rows.csv, line 1", "'text' occurs twice"]),
    ("a cell too many", table("text,label\na,0\nb,c,1\n"), ["rows.csv, line 3", "3 cells under 2"]),
    ("a quote left open", table('text,label\na,0\n"b,1\n'), ["rows.csv", "malformed CSV"]),
    ("semicolons between cells", table("text;label\na;0\n"), ["rows.csv, line 2", "lacks the field 'text'"]),
    ("a label no name matches", table("text,label\na,2\n", fields=NAMED), ["line 2", "'2' must be one of 1, 0"]),
    ("a null in Parquet", parquet({"text": None, "label": 0}, {"text": "b", "label": 1}), ["row 0", "is empty"]),
    ("a null label in Parquet", parquet({"text": "a", "label": 1}, {"text": "b", "label": None}), ["row 1"]),
    ("a column twice in Parquet", parquet({"text": "a", "b": "b"}, names=["text", "text"]), ["'text' occurs twice"]),
    ("bytes as text in Parquet", parquet({"text": b"a", "label": 1}), ["row 0", "'text'", "neither text"]),
    ("a file that is no Parquet", own("text,label", "parquet"), ["rows.parquet", "cannot be read as Parquet"]),
    ("another kind of file", own("", "xlsx"), ["rows.xlsx", ".jsonl, .csv, .parquet"]),
]
# fmt: on

ALIKE = [
    ("JSON lines with a byte order mark", own(("\ufeff" + GOOD).encode())),
    ("a table with a byte order mark", table("\ufefftext,label\nfine,1\npoor,0\n")),
    ("blank lines between rows", own(GOOD.replace("\n", "\n\n"))),
    ("a blank last line in a table", table("text,label\nfine,1\npoor,0\n\n   \n")),
    ("line ends of two systems in a table", own(b"text,label\r\r\nfine,1\r\r\npoor,0\r\r\n", "csv")),
    ("labels with a point in a table", table("text,label\nfine,1.0\npoor,0.0\n")),
    ("labels with a point", own(GOOD.replace("1}", "1.0}"))),
    ("labels as text", own(GOOD.replace("1}", '" 1 "}'))),
    ("names that are numbers, in a table", table("text,label\nfine,0\npoor,1\n", fields=NAMED)),
    ("names that are numbers", own('{"text": "fine", "label": 0}\n{"text": "poor", "label": 1}\n', fields=NAMED)),
    ("names that are numbers with a point", table("text,label\nfine,0.0\npoor,1.0\n", fields=NAMED)),
]

CASES = [Case(situation=name, arguments=SHOW, files=files, says=says) for name, files, says in REFUSED]
CASES += [
    Case(situation="a pipe in place of a file", arguments=SHOW, files=own(GOOD), prepare=pipe, says=["no regular"]),
    Case(
        situation="a folder of data that has too long a name",
        arguments=f"compare --task sst2 --data {'a' * 5000}",
        says=["--data", "…"],
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.situation)
def test_rows(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(("situation", "files"), ALIKE, ids=[name for name, _ in ALIKE])
def test_the_same_rows_however_they_are_written(
    situation: str,
    files: dict[str, str | bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The query shown is the first of the fixed shuffle of two rows: `fine`, whose answer is `so`."""
    case = Case(
        situation=situation, arguments=SHOW, files=files, status=0, says=["gold 'so'", "(1 + 4 tokens", "| Label|:|"]
    )
    check_case(case, tmp_path, monkeypatch, capsys)
