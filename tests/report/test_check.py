"""A run that repeats a published one is checked figure by figure; one that does not is told why."""

from pathlib import Path

import pytest
from made_runs import repetition, save

from lightning_icl.cli import main
from lightning_icl.errors import OutputError
from lightning_icl.published import layer_records, tables
from lightning_icl.report.check import check, check_grid, layer_distance, not_repeated
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.layers import layer_curves
from lightning_icl.report.seeds import seed_groups
from lightning_icl.report.side_by_side import side_grid
from lightning_icl.results import read_run


@pytest.mark.parametrize("size", ["1.3B", "2.7B"])
@pytest.mark.parametrize("task", ["sst2", "sst5", "mr", "subj", "agnews", "cb"])
def test_the_published_figures_themselves_are_within_tolerance(tmp_path: Path, task: str, size: str) -> None:
    runs = read_run(save(tmp_path / "run", repetition(task, size)))
    cells = check(runs)
    assert len(cells) == 10
    assert all(cell.within for cell in cells)
    assert layer_distance(runs[0]) == (0.0 if size == "1.3B" else None)


def test_a_figure_that_is_off_is_said_and_ends_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = repetition()
    results["accuracy"]["icl"] -= 0.021
    results["sim_aou"]["value"] += 0.019
    results["kendall"]["value"] = None
    folder = save(tmp_path / "run", results)
    off = {cell.figure.path for cell in check(read_run(folder)) if not cell.within}
    assert off == {"accuracy.icl", "kendall.value"}
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(folder), "--check"])
    assert stopped.value.code == 1
    assert "8 of 10 published figures are within tolerance" in capsys.readouterr().out


def test_rec2ftp_may_differ_by_one_corrected_query(tmp_path: Path) -> None:
    results = repetition("cb")
    results["rec2ftp"] |= {"value": 0.875 - 1 / 8, "corrected_by_ft": 8}
    cells = {cell.figure.path: cell for cell in check(read_run(save(tmp_path / "a", results)))}
    assert cells["rec2ftp.value"].within
    results["rec2ftp"]["value"] = 0.875 - 2 / 8
    cells = {cell.figure.path: cell for cell in check(read_run(save(tmp_path / "b", results)))}
    assert not cells["rec2ftp.value"].within


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"demonstrations": {"seed": 1}}, "seed 1, and the paper's is 2"),
        ({"finetune": {"lr": 0.1}}, "learning rate 0.1"),
        ({"finetune": None}, "learning rate None"),
        ({"model": {"name": "gpt2"}}, "model gpt2 is none of the paper's"),
    ],
)
def test_what_is_no_repetition_is_told_why(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    runs = read_run(save(tmp_path / "run", repetition() | change))
    assert reason in (not_repeated(runs[0]) or "")
    with pytest.raises(OutputError, match="No task repeats a published run"):
        check_grid(runs)
    assert all(curve.role != "published" for curve in layer_curves(runs[0], "sim_aou"))


def test_deutchs_own_order_has_the_papers_similarity_where_the_demonstrations_are_the_same() -> None:
    for record in layer_records():
        own_order = (record["method"], record["permutation"], record["trained"]) == ("GD", 0, True)
        if own_order and record["task"] in ("sst2", "sst5", "mr", "subj"):
            mean = sum(record["sim_aou"]) / 24
            assert mean == pytest.approx(tables()["1.3B"]["sim_aou"][record["task"]], abs=6e-4)


def test_controls_of_one_kind_are_a_band_from_least_to_most(tmp_path: Path) -> None:
    run = read_run(save(tmp_path / "run", repetition()))[0]
    band = next(curve for curve in layer_curves(run, "sim_aou") if curve.upper)
    assert (set(band.values), set(band.upper or ())) == ({0.2}, {0.4})
    grid = controls_grid([run])
    assert grid is not None
    assert grid.rows[1][5] == "0.012"


def test_models_stand_side_by_side_by_size_over_the_tasks_they_share(tmp_path: Path) -> None:
    small, large = repetition("sst2"), repetition("sst2", "2.7B")
    large["model"]["parameters"] = 2_700_000_000
    first = save(tmp_path / "large", large)
    save(first, repetition("cb", "2.7B") | {"model": large["model"]})
    grid = side_grid(seed_groups([read_run(first), read_run(save(tmp_path / "small", small))]))
    assert [row[1] for row in grid.rows] == ["1,300,000,000", "2,700,000,000"]
    assert [row[grid.header.index("SimAOU")] for row in grid.rows] == ["0.110", "0.195"]  # cb is left out
