"""Sweeps, the dual form and weight updates by one call each give what the command line gives."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_folders import IN_MEMORY as TASK

from lightning_icl import (
    DualFormResults,
    SweepResults,
    WeightUpdateResults,
    dual_form,
    find_model,
    load_model,
    sweep,
    weight_update,
)
from lightning_icl.errors import OutputError, TaskError, UserError

SWEEP: dict[str, Any] = {"shots": 5, "seeds": [1, 2], "lrs": (0.1, 0.2), "heldout": 4}


def figures(frame: Any) -> list[tuple]:
    """The values of a frame, and what they are of, but for the model's name."""
    return [tuple(row) for row in frame.drop(columns="model").astype(object).where(frame.notna(), None).values.tolist()]


@pytest.fixture(scope="module")
def model(here: Path) -> Any:
    return load_model(find_model(str(here / "model")))


def test_a_sweep_of_objects_is_the_one_that_is_typed(here: Path, rows: dict, model: Any) -> None:
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    results, typed = sweep(model, TASK, data=rows, **SWEEP), SweepResults(here / "swept")
    frame = results.to_frame()
    assert figures(frame) == figures(typed.to_frame())
    assert [row["lr"] for row in results.chosen] == [row["lr"] for row in typed.chosen]
    assert not frame.duplicated(["seed", "lr", "measure", "figure"]).any()
    assert set(frame.seed) == {1, 2}
    assert set(frame.lr) == {0.1, 0.2}
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_sweep_is_shown_saved_and_grows(here: Path, tmp_path: Path) -> None:
    arguments = {"model": str(here / "model"), "task": str(here / "tiny.yaml"), "out": tmp_path / "sweep", **SWEEP}
    results = sweep(**arguments)
    assert "selected rate" in results.table(width=60)
    assert max(map(len, results.table(width=60).splitlines())) <= 60
    assert "<svg" in results.report(tmp_path / "page.html").read_text()
    assert SweepResults(results.save(tmp_path / "kept")).rows == results.rows
    assert len(sweep(**{**arguments, "lrs": [0.1, 0.2, 0.4]}).rows) == 6


def test_the_dual_form_of_objects_is_the_one_that_is_typed(here: Path, rows: dict, model: Any, tmp_path: Path) -> None:
    results = dual_form(model, TASK, data=rows, shots=5, layers=0, limit=4)
    typed = DualFormResults(here / "dual")
    frame = results.to_frame()
    assert figures(frame) == figures(typed.to_frame())
    assert not frame.duplicated(["figure", "layer", "head"]).any()
    assert frame[frame.figure == "cosine"].value.tolist() == typed["tiny"]["per_head"]["cosine"][0]
    assert frame[frame.figure == "patch_cosine"]["head"].isna().all()
    assert "ΔW_ICL" in results.table()
    assert figures(DualFormResults(results.save(tmp_path / "kept")).to_frame()) == figures(frame)


def test_weight_updates_of_objects_are_those_that_are_typed(here: Path, rows: dict, model: Any, tmp_path: Path) -> None:
    results = weight_update(model, TASK, data=rows, shots=5, limit=4, held_out=4)
    typed = WeightUpdateResults(here / "rungs")
    frame = results.to_frame(layers=True)
    assert figures(frame) == figures(typed.to_frame(layers=True))
    assert not frame.duplicated(["condition", "figure", "layer"]).any()
    affine = frame[(frame.condition == "affine") & frame.layer.isna()].set_index("figure")
    assert affine.value["kl"] == typed["tiny"]["conditions"]["affine"]["kl"]
    assert [affine.low["kl"], affine.high["kl"]] == typed["tiny"]["intervals"]["affine"]["kl"]
    assert "affine" in results.table(intervals=True)
    assert "<table" in results.report(tmp_path / "page.html").read_text()


MISTAKES = {
    "an unknown argument": (sweep, {"lr": 0.1}, r"sweep\(\) takes no argument 'lr'. Did you mean 'lrs'"),
    "a rate that is none": (sweep, {"lrs": [0.1, "fast"]}, "--lrs '0.1,fast'"),
    "no rates": (sweep, {"lrs": []}, r"lrs = \[\]: give"),
    "a share of a plan": (sweep, {"part": "0/2"}, "takes no argument 'part'"),
    "a layer too many": (dual_form, {"layers": [0, 99]}, "no layer 99"),
    "cases without a model": (dual_form, {"synthetic": True}, "takes no argument 'synthetic'"),
    "a scope that is none": (weight_update, {"scope": "probes"}, "scope = 'probes': give .* Did you mean 'probe'"),
    "fast weights of a scope": (weight_update, {"fast_weights": "affine"}, "--scope query"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_says_what_is_allowed(mistake: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, given, message = MISTAKES[mistake]
    monkeypatch.setattr("lightning_icl.models.subject.load_model", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UserError, match=message):
        call(str(here / "model"), str(here / "tiny.yaml"), **given)


def test_a_folder_of_another_kind_is_named(here: Path) -> None:
    for kind in (DualFormResults, WeightUpdateResults):
        with pytest.raises(OutputError, match="no finished run of"):
            kind(here / "typed")
    with pytest.raises(OutputError, match="swept"):
        DualFormResults(here / "swept")
    with pytest.raises(UserError, match=r"no task .sst2.\. Theirs: tiny"):
        DualFormResults(here / "dual")["sst2"]
    with pytest.raises(TaskError):
        sweep(str(here / "model"), "tiny-sst2,tiny-cb", data={"train": [], "validation": []})
