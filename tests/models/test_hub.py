"""Models from the hub by the real transformers, from a stand-in on loopback: what is read, refused and recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stand_in_hub import Files, stand_in_hub
from tiny_folders import SETTINGS, changed_config, model_folder
from tiny_gguf import gguf_model, write_gguf

PROGRAM = """
import contextlib, io, json, sys
from lightning_icl.cli import main
said = []
for arguments in sys.argv[1:]:
    err, status = io.StringIO(), 0
    with contextlib.redirect_stderr(err):
        try:
            main(arguments.split())
        except SystemExit as stopped:
            status = stopped.code
    said.append((status, err.getvalue()))
json.dump(said, open("said.json", "w"))
"""
RUNS = {
    "safe": "some/safe",
    "older": "some/safe --revision older",
    "nothing": "some/safe --revision newer",
    "pickled": "KoboldAI/fairseq-dense-1.3B",
    "allowed": "KoboldAI/fairseq-dense-1.3B --allow-pickle",
    "index": "some/index",
    "gguf": "some/packed/tiny.gguf",
    "no-gguf": "some/packed/other.gguf",
    "none": "some/none",
    "no-weights": "some/empty",
}


def files_of(folder: Path, *without: str) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in without}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, dict]]:
    """By run its status, message and results, all made by one process of its own."""
    here = tmp_path_factory.mktemp("hub")
    safe = files_of(model_folder(here, "xglm"))
    changed_config(here / "model", layer_norm_eps=0.1, activation_dropout=0.2)
    older = files_of(here / "model")
    torch.save(load_file(here / "model/model.safetensors"), here / "model/pytorch_model.bin")
    pickled = files_of(here / "model", "model.safetensors")
    index = json.dumps({"weight_map": {"a": "pytorch_model.bin"}, "metadata": {}}).encode()
    hub = {
        "some/safe": {"main": safe, "older": older},
        "KoboldAI/fairseq-dense-1.3B": {"main": pickled},
        "some/index": {"main": {**pickled, "model.safetensors.index.json": index}},
        "some/packed": {"main": {"tiny.gguf": write_gguf(here / "tiny.gguf", gguf_model()).read_bytes()}},
        "some/empty": {"main": files_of(here / "model", "model.safetensors", "pytorch_model.bin")},
    }
    commands = [f"compare --model {model} {SETTINGS} --lr 0.1 --out {name}" for name, model in RUNS.items()]
    with stand_in_hub(hub) as address:
        settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(here / "cache")}
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *commands],
            env={**os.environ, **settings},
            cwd=here,
            check=True,
            timeout=300,
        )
    said = dict(zip(RUNS, json.loads((here / "said.json").read_text()), strict=True))
    made = {name: here / name / "tiny/results.json" for name in RUNS}
    results = {name: json.loads(path.read_text()) if path.exists() else {} for name, path in made.items()}
    return {name: (*said[name], results[name]) for name in RUNS}


@pytest.mark.parametrize("name", ["safe", "older", "allowed", "gguf"])
def test_a_model_from_the_hub_is_measured_and_its_commit_kept(name: str, runs: dict) -> None:
    status, message, results = runs[name]
    assert status == 0, message
    assert len(results["model"]["commit"]) == 40
    assert results["model"]["revision"] == ("older" if name == "older" else None)


def test_another_revision_is_another_model(runs: dict) -> None:
    safe, older = runs["safe"][2], runs["older"][2]
    assert safe["model"]["commit"] != older["model"]["commit"]
    assert safe["fingerprints"]["weights"] != older["fingerprints"]["weights"]
    assert safe["fingerprints"]["rows"] == older["fingerprints"]["rows"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pickled", "'KoboldAI/fairseq-dense-1.3B' has no safetensors weights on the hub"),
        ("pickled", "--allow-pickle"),
        ("index", "'pytorch_model.bin' as a file of weights"),
        ("no-weights", "has no safetensors weights"),
        ("nothing", "newer"),
        ("no-gguf", "other.gguf"),
        ("none", "'some/none' cannot be loaded from the Hugging Face hub"),
    ],
)
def test_what_cannot_be_read_from_the_hub_is_said(name: str, words: str, runs: dict) -> None:
    status, message, results = runs[name]
    assert status == 2
    assert words in message
    assert message.count("\n") == 1
    assert not results
