"""Models of one run of the momentum experiment trained further by another: what they begin with, and what they read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_experiment import TRAINING, tiny_experiment

from experiments.momentum import output
from experiments.momentum.run import MEASURED, run
from experiments.momentum.settings import ExperimentSettings
from experiments.momentum.training_curves import courses
from lightning_icl.errors import UserError
from lightning_icl.saving.record import digest


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentSettings, Path]:
    """Three small models, one of them with gates."""
    folder = tmp_path_factory.mktemp("further")
    gated = {"momentum": 0.9, "momentum_form": "mean", "learn_momentum": True, "gate_init": 0.3}
    settings = tiny_experiment(folder, training=at_rate(0.01), arms={"gate-learnt": gated})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "draw_curves", lambda *_: [])
        run(settings, folder / "first")
    return settings, folder / "first"


def at_rate(learning_rate: float) -> dict[str, float]:
    """Without warm-up or weight decay, so that a vanishing rate changes nothing."""
    return {"learning_rate": learning_rate, "warmup": 0, "weight_decay": 0.0}


def further(settings: ExperimentSettings, start: Path, learning_rate: float) -> ExperimentSettings:
    return replace(settings, start=str(start), pretrain={**TRAINING, **at_rate(learning_rate)})


def test_at_a_vanishing_rate_every_model_keeps_its_figures_and_reads_other_documents(
    first: tuple[ExperimentSettings, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "draw_curves", lambda *_: [])
    settings, start = first
    weights = {path: digest(path) for path in start.rglob("*.safetensors")}
    again = further(settings, start, 1e-12)
    run(again, tmp_path / "again")
    one, other = (json.loads((out / "results.json").read_text()) for out in (start, tmp_path / "again"))
    assert list(one) == list(other) == ["vanilla", "eta-0.9", "gate-learnt"]
    for name, found in one.items():
        for length, perplexity in found["1"]["perplexity"].items():
            assert other[name]["1"]["perplexity"][length] == pytest.approx(perplexity, rel=1e-6), (name, length)
        for kind in ("eta", "gate"):
            assert bool(found["1"][kind]) == (name == "gate-learnt")
    assert {path: digest(path) for path in start.rglob("*.safetensors")} == weights
    for course in courses(again, tmp_path / "again"):
        read = [tokens for tokens, row in course.rows if row.get("loss")]
        assert read == sorted(read)
        assert read[-1] == pytest.approx(2 * 4 * 64 / 1e6)
    losses = [
        (out / "models" / "vanilla-seed1" / "training_log.csv").read_text() for out in (start, tmp_path / "again")
    ]
    assert losses[0] != losses[1]


def test_further_training_lowers_the_loss_of_what_is_read(
    first: tuple[ExperimentSettings, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "draw_curves", lambda *_: [])
    settings, start = first
    run(further(settings, start, 0.01), tmp_path / "more")
    one, other = (json.loads((out / "results.json").read_text()) for out in (start, tmp_path / "more"))
    for name in one:
        assert other[name]["1"]["train_perplexity"] < one[name]["1"]["train_perplexity"], name


def test_mistakes_about_the_start_are_named_before_anything_is_trained(
    first: tuple[ExperimentSettings, Path], tmp_path: Path
) -> None:
    settings, start = first
    with pytest.raises(UserError, match=r"holds no model to train further.*vanilla with seed 2"):
        run(replace(further(settings, start, 0.01), seeds=(1, 2)), tmp_path / "none")
    with pytest.raises(UserError, match="start and search"):
        replace(further(settings, start, 0.01), search={"learning_rate": (0.1,)}, search_text="a")
    with pytest.raises(UserError, match="is for fresh weights"):
        run(replace(settings, start=str(start)), tmp_path / "none")
    assert not list((tmp_path / "none").rglob("*.safetensors"))


def test_figures_are_measured_again_where_rows_changed_and_kept_where_they_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "draw_curves", lambda *_: [])

    def write_rows(folder: Path, texts: str) -> None:
        (folder / "mr").mkdir(parents=True, exist_ok=True)
        for split in ("train", "validation"):
            rows = [{"text": f"{texts} {split} {number}", "label": number % 2} for number in range(6)]
            (folder / "mr" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def figures() -> dict[Path, int]:
        return {path: path.stat().st_ino for path in tmp_path.rglob(MEASURED)}

    settings = tiny_experiment(
        tmp_path, training=at_rate(0.01), further_tasks="mr", data=str(tmp_path / "rows"), arms={}
    )
    write_rows(tmp_path / "rows", "a film")
    run(settings, tmp_path / "out")
    weights, first = {path: digest(path) for path in tmp_path.rglob("*.safetensors")}, figures()
    assert len(weights) == len(first) == 2
    write_rows(tmp_path / "elsewhere", "a film")
    run(replace(settings, data=str(tmp_path / "elsewhere")), tmp_path / "out")
    assert figures() == first
    write_rows(tmp_path / "elsewhere", "a book")
    run(replace(settings, data=str(tmp_path / "elsewhere")), tmp_path / "out")
    assert figures().keys() == first.keys()
    # Written to a new file and renamed.
    assert all(inode != first[path] for path, inode in figures().items())
    assert {path: digest(path) for path in tmp_path.rglob("*.safetensors")} == weights
