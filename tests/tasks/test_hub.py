"""Rows from the hub by the real `datasets`, from a stand-in on loopback laid out as the hub's repositories are."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stand_in_hub import Files, stand_in_hub

from lightning_icl.tasks.catalogue import TASKS
from lightning_icl.tasks.task import HubSource

CONVERTED = "refs/convert/parquet"


def script(name: str) -> Files:
    """A branch that holds a program in place of rows."""
    return {"README.md": b"---\nlanguage: en\n---\n", f"{name}.py": b"raise RuntimeError('a script was run')"}


def parquet(*rows: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def lines(*rows: dict[str, object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def two(split: str, *fields: str, label: str = "label") -> tuple[dict[str, object], ...]:
    return tuple({**{name: f"{name} {split} {n}" for name in fields}, label: n} for n in range(2))


def arc(split: str) -> tuple[dict[str, object], ...]:
    choices = {"text": ["sun", "moon"], "label": ["A", "B"]}
    return tuple({"question": f"question {split}", "choices": choices, "answerKey": key} for key in "AB")


def listed(*configurations: str, splits: tuple[str, ...]) -> bytes:
    """A card that says which files belong to a configuration's splits."""
    parts = ["configs:"]
    for name in configurations:
        parts += [f"- config_name: {name}", "  data_files:"]
        parts += [f"  - split: {split}\n    path: {name}/{split}-*" for split in splits]
    return "\n".join(["---", *parts, "---", ""]).encode()


def in_parts(folder: str, splits: tuple[str, ...], *fields: str) -> Files:
    return {f"{folder}/{split}-00000-of-00001.parquet": parquet(*two(split, *fields)) for split in splits}


def converted(configuration: str, splits: tuple[str, ...], *fields: str, label: str = "label") -> Files:
    return {f"{configuration}/{split}/0000.parquet": parquet(*two(split, *fields, label=label)) for split in splits}


BOTH, WITH_TEST, ALL = ("train", "validation"), ("train", "test"), ("train", "validation", "test")
HUB = {
    "nyu-mll/glue": {
        "main": {
            "README.md": listed("sst2", "rte", splits=BOTH),
            **in_parts("sst2", BOTH, "sentence"),
            **in_parts("rte", BOTH, "sentence1", "sentence2"),
        }
    },
    "SetFit/sst5": {"main": {f"{name}.jsonl": lines(*two(name, "text")) for name in ("train", "dev", "test")}},
    "cornell-movie-review-data/rotten_tomatoes": {
        "main": {f"{split}.parquet": parquet(*two(split, "text")) for split in ALL}
    },
    "SetFit/subj": {"main": {f"{split}.jsonl": lines(*two(split, "text")) for split in WITH_TEST}},
    "fancyzhx/ag_news": {"main": in_parts("data", WITH_TEST, "text")},
    "aps/super_glue": {
        "main": script("super_glue"),
        CONVERTED: {
            **converted("boolq", ALL, "passage", "question"),
            **converted("cb", ALL, "premise", "hypothesis"),
            **converted("rte", ALL, "premise", "hypothesis"),
        },
    },
    "CogComp/trec": {"main": script("trec"), CONVERTED: converted("default", WITH_TEST, "text", label="coarse_label")},
    "fancyzhx/dbpedia_14": {
        "main": {
            "README.md": listed("dbpedia_14", splits=WITH_TEST),
            **in_parts("dbpedia_14", WITH_TEST, "title", "content"),
        }
    },
    "stanfordnlp/imdb": {
        "main": {"README.md": listed("plain_text", splits=WITH_TEST), **in_parts("plain_text", WITH_TEST, "text")}
    },
    "allenai/ai2_arc": {
        "main": {
            "README.md": listed("ARC-Challenge", "ARC-Easy", splits=BOTH),
            **{f"ARC-Challenge/{split}-00000-of-00001.parquet": parquet(*arc(f"hard {split}")) for split in BOTH},
            **{f"ARC-Easy/{split}-00000-of-00001.parquet": parquet(*arc(split)) for split in BOTH},
        }
    },
    "ybisk/piqa": {"main": script("piqa"), CONVERTED: converted("plain_text", BOTH, "goal", "sol1", "sol2")},
}
ON_HUB = [task for task in TASKS.values() if isinstance(task.source, HubSource)]

PROGRAM = """
import dataclasses, json, sys
from lightning_icl.errors import TaskError
from lightning_icl.tasks.catalogue import TASKS
from lightning_icl.tasks.rows import load_rows
from lightning_icl.tasks.task import HubSource

found = {}
for name, change in {"script": {"revision": None}, "folder": {"config": "bc"}, "gone": {"path": "aps/glue"}}.items():
    try:
        load_rows(dataclasses.replace(TASKS["cb"], source=dataclasses.replace(TASKS["cb"].source, **change)))
    except TaskError as error:
        found[name] = str(error)
for task in TASKS.values():
    if isinstance(task.source, HubSource):
        rows = load_rows(task)
        found[task.name] = [[task.prompt(row.fields) for row in split] for split in (rows.train, rows.queries)]
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """What a process of its own reads from the stand-in: prompts of both splits by task, and messages."""
    with stand_in_hub(HUB) as address:
        settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path_factory.mktemp("hub"))}
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **settings, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout))


def test_every_task_of_the_catalogue_finds_its_rows(read: dict[str, list[list[str]]]) -> None:
    for task in ON_HUB:
        assert isinstance(task.source, HubSource)
        query_split = "dev" if task.name == "sst5" else task.source.query_split
        for prompts, split in zip(read[task.name], ("train", query_split), strict=True):
            assert len(prompts) == 2
            assert all(f" {split}" in prompt for prompt in prompts), (task.name, prompts)
            assert not any("hard" in prompt for prompt in prompts)


def test_a_repository_of_a_script_says_what_to_do(read: dict[str, str]) -> None:
    assert "refs/convert/parquet" in read["script"]
    assert "script" in read["script"]


def test_a_folder_or_a_repository_that_is_not_there_is_named(read: dict[str, str]) -> None:
    assert "hub:aps/super_glue/bc/train" in read["folder"]
    assert "hub:aps/glue/cb/train" in read["gone"]
