"""Every command that the documents print is one that the program takes, and runs where this package is all it needs.

A command that is not run says why: it needs the network, the reader's own files or hours.
"""

import re
import shlex
import shutil
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from documented import ROOT, command_lines
from tiny_folders import SETTINGS, model_folder

from lightning_icl.cli import COMMANDS, command_parser, main
from lightning_icl.flags import read_settings
from lightning_icl.models.finding import BUILTIN
from lightning_icl.tasks.catalogue import GENERATED

SMALLER = {
    "compare": "--limit 4 --shots 4",
    "dual-form": "--limit 2 --shots 4",
    "weight-update": "--limit 2 --shots 4 --held-out 4",
    "sweep": "--limit 4 --shots 4 --seeds 1,2 --heldout 16",
}
"""What is added to a documented command: fewer queries and demonstrations."""

MADE = {
    "runs/fit": f"fit {SETTINGS}",
    "runs/val": f"compare {SETTINGS}",
    "runs/ladder": f"weight-update {SETTINGS} --limit 2 --held-out 4",
    "runs/sweep": "sweep --task tiny.yaml --shots 5 --seeds 1 --lrs 0.1,0.2 --heldout 4",
    **{f"runs/seed-{seed}": f"compare {SETTINGS} --seed {seed}" for seed in (1, 2, 3)},
}
"""Runs that the documents speak of as made before, made of a tiny model."""


def reason(line: str) -> str | None:
    """Why a documented command is not run here; None where it is."""
    command, *words = line.split()[1:]
    flags = dict(pairwise(words))
    model, task = flags.get("--model", "builtin"), flags.get("--task", "tiny-sst2")
    if re.search(r"(^|[ /])([A-Z]+)( |$)|\.\.\.|\$[A-Z]|path/to", line):
        return "stands for what a reader puts there"
    if command == "pretrain":
        return "trains for hours"
    if "runs/paper" in line or "experiments/paper" in line or "KoboldAI" in line:
        return "needs the network and a GPU: the paper's models"
    if model not in BUILTIN and not model.startswith("smollm2"):
        return "needs the network: a model of the hub"
    if any(name not in GENERATED and name != "builtin" and ".yaml" not in name for name in task.split(",")):
        return "needs the network: rows of the hub"
    if ".yaml" in task or model not in BUILTIN:
        return "needs the page's model and rows, which are not part of the package"
    more = (other for other in command_lines() if other != line and set(line.split()) < set(other.split()))
    covering = next((other for other in more if reason(other) is None), None)
    return covering and f"is part of another that runs: {covering}"


def as_typed(line: str) -> list[str]:
    """The words behind the program's name, with what stands for a number in a loop."""
    return shlex.split(line.replace(" ...", "").replace("$seed", "1").replace("$SLURM_ARRAY_TASK_ID", "1"))[1:]


def test_documents_print_commands_and_most_kinds_run() -> None:
    assert len(command_lines()) > 30
    assert kinds(line for line in command_lines() if reason(line) is None) >= {
        "compare", "dual-form", "weight-update", "sweep", "validate", "report", "tasks", "models",
    }  # fmt: skip


def kinds(lines: Iterable[str]) -> set[str]:
    return {line.split()[1] for line in lines}


@pytest.mark.parametrize("line", command_lines())
def test_a_documented_command_is_taken(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name, *words = as_typed(line)
    given, unknown = command_parser(name).parse_known_args(words)
    assert unknown == []
    settings = COMMANDS[name].settings
    if settings is not None and words:
        if hasattr(given, "overlay"):  # the folder of a reader's own run
            del given.overlay
        read_settings(settings, given)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs that documented commands go on from."""
    folder = tmp_path_factory.mktemp("documented")
    model_folder(folder)
    model_folder(folder, "gpt2", "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for out, line in MADE.items():
            main(f"{line} --model model --out {out}".split())
        main(f"compare {SETTINGS} --model other --out runs/b".split())
    shutil.copytree(folder / "runs/val", folder / "runs/a")
    return folder


@pytest.mark.parametrize("line", command_lines())
def test_a_documented_command_runs(
    line: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if (why := reason(line)) is not None:
        pytest.skip(why)
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    name, *words = as_typed(line)
    out = words[words.index("--out") + 1] if "--out" in words else None
    if out is not None:
        shutil.rmtree(out, ignore_errors=True)  # the run that the command itself makes
    task = ["--task", "tiny-sst2"] if name == "compare" and "--task" not in words else []
    main([name, *words, *task, *SMALLER.get(name, "").split()])
    assert capsys.readouterr().out.strip()
    assert out is None or any(Path(out).rglob("*.json"))
    if "--html" in words:
        assert "<html" in Path(words[words.index("--html") + 1]).read_text(encoding="utf-8")
