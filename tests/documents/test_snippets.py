"""Programs, task files and other command lines in the documents: run, read, or held against what there is."""

import configparser
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from documented import ROOT, blocks, everything
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.data.queries import collate
from lightning_icl.tasks.catalogue import resolve_tasks


def around(tmp_path: Path) -> dict[str, Any]:
    """What a page has spoken of before its program begins."""
    import torch

    data = tiny_data(tmp_path)
    query, key, value = torch.randn(3, 1, 2, 5, 8).unbind(0)
    return {
        "docs/weight-update.md 0": {
            "model": tiny_model("gpt2"),
            "data": data,
            "held_out_batches": [collate(data.queries)],
            "batch": collate(data.queries),
        },
        "docs/momentum.md 0": {
            "model": tiny_model("llama"),
            "other": tiny_model("llama"),
            "query": query,
            "key": key,
            "value": value,
        },
    }


@pytest.mark.parametrize("place", blocks("python"))
def test_a_documented_program_runs(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program = blocks("python")[place].replace("limit=64", "limit=8")
    namespace = around(tmp_path).get(place, {})
    exec(compile(program, place, "exec"), namespace)
    assert "print" not in program or capsys.readouterr().out.strip()


def test_the_documents_print_programs() -> None:
    assert len(blocks("python")) >= 4
    assert len(blocks("yaml")) >= 2


@pytest.mark.parametrize("place", [place for place, text in blocks("yaml").items() if "template:" in text])
def test_a_documented_task_file_is_a_task(place: str, tmp_path: Path) -> None:
    path = tmp_path / "mytask.yaml"
    path.write_text(blocks("yaml")[place], encoding="utf-8")
    task = resolve_tasks(str(path))[str(path)]
    assert len(task.answers) >= 2
    assert task.prompt({"text": "words"}).strip()


def test_every_script_and_target_that_is_named_exists() -> None:
    text = everything()
    modules = {name.rstrip(".") for name in re.findall(r"python -m ([a-z_.]+)", text)} - {"package.script"}
    assert len(modules) > 10
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    paths = set(re.findall(r"python ([a-z_]+/[\w/]+\.py)", text))
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^ {4}|`)make ([a-z]+)", text, flags=re.MULTILINE)) <= targets


def test_every_extra_that_is_named_exists() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = {
        name
        for extras in re.findall(r"pip install[^\n`]*(?:\.|lightning-icl)\[([a-z0-9,]+)\]", everything())
        for name in extras.split(",")
    }
    assert named
    assert named <= set(config["options.extras_require"])
