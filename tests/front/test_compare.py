"""The front door for programs gives what the command line gives, however model and rows come."""

from pathlib import Path

import datasets
import lightning as L
import pandas as pd
import pytest
import torch
from exactness import make_trainer
from tiny_folders import IN_MEMORY as TASK
from tiny_models import tiny_model
from tiny_task import word_tokenizer

from lightning_icl import ICLDataModule, ICLProbe, KVFinetuning, Results, compare, find_model, load_model
from lightning_icl.errors import ModelError, OutputError, TaskError, UserError

EXACT = ("accuracy", "rec2ftp", "sim_aou", "sim_am", "kendall")


def figures(results: Results) -> dict:
    return {level: results["tiny"][level] for level in EXACT}


KINDS = {
    "lists": lambda rows: rows,
    "data sets": lambda rows: datasets.DatasetDict(
        {name: datasets.Dataset.from_list(own) for name, own in rows.items()}
    ),
    "frames": lambda rows: {name: pd.DataFrame(own) for name, own in rows.items()},
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_memory_and_a_model_object_give_what_files_give(kind: str, here: Path, rows: dict) -> None:
    model = load_model(find_model(str(here / "model")))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    results = compare(model, TASK, data=KINDS[kind](rows), shots=5)
    assert figures(results) == figures(Results(here / "typed"))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_name_and_a_folder_give_it_too(here: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(here / "rows")
    results = compare(str(here / "model"), TASK, data=tmp_path, shots=5, out=tmp_path / "out")
    assert figures(results) == figures(Results(tmp_path / "out")) == figures(Results(here / "typed"))


def test_a_data_module_takes_length_and_tokenizer_from_the_model(here: Path, rows: dict) -> None:
    model = load_model(find_model(str(here / "model")))
    data = ICLDataModule(TASK, model, data=rows, shots=5)
    probe = ICLProbe(model, data.demonstrations)
    trainer: L.Trainer = make_trainer(KVFinetuning(0.1))
    trainer.fit(probe, datamodule=data)
    trainer.validate(probe, datamodule=data, verbose=False)
    assert probe.comparison is not None
    typed = Results(here / "typed")["tiny"]
    assert float(probe.comparison.sim_aou.normalised.value) == pytest.approx(typed["sim_aou"]["value"], abs=1e-6)
    named = ICLDataModule("tiny-sst2", "builtin", shots=2, limit=3)
    assert len(named.queries) == 3


def test_a_frame_has_one_row_a_figure(here: Path, rows: dict) -> None:
    results = compare(str(here / "model"), TASK, data=rows, shots=5, controls="ft-gaussian")
    frame = results.to_frame()
    keys = ["model", "task", "control", "measure", "figure"]
    assert not frame.duplicated(keys).any()
    own = frame[frame.control == ""].set_index(["measure", "figure"])
    assert own.value["accuracy", "icl"] == results["tiny"]["accuracy"]["icl"]
    assert own.value["sim_aou", "raw"] == results["tiny"]["sim_aou"]["raw"]
    assert own.low["accuracy", "icl"] <= own.value["accuracy", "icl"] <= own.high["accuracy", "icl"]
    control = frame[frame.control == "ft-gaussian"].set_index(["measure", "figure"])
    assert control.value["sim_aou", "value"] == results["tiny"]["controls"]["ft-gaussian"]["sim_aou"]["value"]
    layers = results.to_frame(layers=True).query("control == '' and measure == 'sim_aou' and figure == 'value'")
    assert layers[layers.layer.notna()].value.tolist() == results["tiny"]["sim_aou"]["per_layer"]


def test_results_are_shown_saved_and_read_again(here: Path, tmp_path: Path) -> None:
    results = Results(here / "typed")
    assert "SimAOU" in results.table(width=60)
    assert max(map(len, results.table(width=60).splitlines())) <= 60
    saved = Results(results.save(tmp_path / "kept"))
    assert figures(saved) == figures(results)
    assert saved.predictions("tiny")[0].keys() >= {"index", "gold", "scores", "prompt"}
    assert "<html" in results.report(tmp_path / "page.html").read_text()
    with pytest.raises(OutputError, match="exists already"):
        results.save(tmp_path / "kept")


MISTAKES = {
    "an unknown argument": ({"shot": 3}, UserError, "no argument 'shot'. Did you mean 'shots'"),
    "text for a number": ({"shots": "many"}, UserError, "shots = 'many': give a whole number"),
    "a number out of range": ({"shots": 0}, UserError, "shots"),
    "a word that is none": ({"probe_token": "answers"}, UserError, "Did you mean 'answer'"),
    "rows of another kind": ({"data": 3}, UserError, "data is a int. Give a folder"),
    "a folder that is none": ({"data": "own"}, TaskError, "'own' is no folder"),
    "a split too few": ({"data": {"train": [], "test": []}}, TaskError, "no split 'validation'"),
    "rows that are text": ({"data": {"train": "a.csv", "validation": "b.csv"}}, TaskError, "train rows are a str"),
    "rows of tuples": ({"data": {"train": [(1, 2)], "validation": []}}, TaskError, "train row 0: .* not a tuple"),
    "a row without a label": (
        {"data": {"train": [{"text": "w9"}], "validation": []}}, TaskError, "train row 0 in memory: .* 'label'"
    ),
    "a model that is none": ({"model": 3}, ModelError, "not a int"),
    "a control that is none": ({"controls": ["order", "ft-gauss"]}, UserError, "Did you mean 'ft-gaussian'"),
    "an unknown task": ({"task": "tiny-sst3"}, TaskError, "'tiny-sst3' is not known. Did you mean 'tiny-"),
    "a model from nowhere": ({"model": tiny_model("llama")}, ModelError, "Give its tokenizer as well"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_says_what_is_allowed(mistake: str, here: Path) -> None:
    changes, kind, message = MISTAKES[mistake]
    given = {"model": str(here / "model"), "task": TASK, **changes}
    with pytest.raises(kind, match=message):
        compare(**given)


def test_a_tokenizer_alone_needs_the_length_of_the_context(rows: dict) -> None:
    with pytest.raises(UserError, match="context_length=…"):
        ICLDataModule(TASK, word_tokenizer(), data=rows)
    assert len(ICLDataModule(TASK, word_tokenizer(), context_length=256, data=rows, shots=2).demonstrations) == 2
