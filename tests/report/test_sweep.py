"""A sweep reported from its files: means over seeds, the choice, the page and the pictures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_icl.cli import main
from lightning_icl.errors import OutputError
from lightning_icl.measures import FIGURES, compared_levels
from lightning_icl.report.sweep import over_rates, read_sweep, settings_of

RATES, SEEDS = (0.01, 0.1, 1.0), (1, 2)
SIM_AOU = {(0.01, 1): 0.1, (0.01, 2): 0.3, (0.1, 1): 0.5, (0.1, 2): 0.4, (1.0, 1): 0.2, (1.0, 2): 0.2}
HELD_OUT = {0.01: 0.6, 0.1: 0.9, 1.0: 0.7}


def run(task: str, rate: float, seed: int, **changes: Any) -> dict[str, Any]:
    levels = {level: {"value": SIM_AOU[rate, seed]} for level in compared_levels()}
    return {
        "schema": 1, "fingerprint": "one", "model": "builtin", "task": task, "shots": 4, "seed": seed, "lr": rate,
        "demonstrations": {"count": 4}, "diverged": None, "queries": 9,
        "accuracy": {"zsl": 0.25, "icl": 0.75, "ft": 0.5}, "comparison": levels,
        "selection": {"select": "heldout", "accuracy": HELD_OUT[rate] + seed / 100}, **changes,
    }  # fmt: skip


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "sweep"
    for task in ("sst2", "cb"):
        for rate, seed in SIM_AOU:
            lost = {"diverged": "loss is nan", "comparison": None} if (task, rate, seed) == ("cb", 1.0, 1) else {}
            place = folder / "builtin" / task / "shots-4" / f"seed-{seed}" / f"lr-{rate}"
            place.mkdir(parents=True)
            (place / "run.json").write_text(json.dumps(run(task, rate, seed, **lost)))
    (folder / "plan.json").write_text("{}")
    return folder


def test_means_over_seeds_and_the_choice_are_those_of_the_files(sweep: Path) -> None:
    settings = settings_of(read_sweep(sweep))
    assert list(settings) == ["cb, 4 shots", "sst2, 4 shots"]
    sim_aou = next(figure for figure in FIGURES if figure.path == "sim_aou.value")
    over = over_rates(sim_aou, settings["sst2, 4 shots"])
    assert over.rates == RATES
    assert over.means == pytest.approx((0.2, 0.45, 0.2))
    assert (over.chosen, len(over.seeds)) == (0.1, 6)
    assert len(over_rates(sim_aou, settings["cb, 4 shots"]).seeds) == 5  # one diverged
    tuned = next(figure for figure in FIGURES if figure.path == "accuracy.ft")
    assert over_rates(tuned, settings["cb, 4 shots"]).levels == {"ZSL accuracy": 25.0, "ICL accuracy": 75.0}


def test_runs_of_an_earlier_plan_are_left_out(sweep: Path) -> None:
    place = sweep / "builtin" / "sst2" / "shots-4" / "seed-3" / "lr-0.1"
    place.mkdir(parents=True)
    (place / "run.json").write_text(json.dumps(run("sst2", 0.1, 1) | {"seed": 3, "fingerprint": "two"}))
    assert [row["seed"] for row in read_sweep(sweep) if row["task"] == "sst2"] == [3]


def test_a_sweep_has_a_page_and_pictures(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(sweep), "--html", str(tmp_path / "page.html"), "--export"])
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("│ sst2"))
    cells = [cell.strip() for cell in line.split("│")]
    assert cells[2:11] == ["builtin", "4", "0.1", "2", "25.0", "50.0", "75.0", "45.0", "0.450"]
    assert "1 of 12 runs diverged" in printed
    page = (tmp_path / "page.html").read_text()
    chart = page.split("sst2, 4 shots")[1].split("<figcaption>SimAOU</figcaption>")[1].split("</figure>")[0]
    assert re.findall(r"rate ([\d.]+), mean: ([\d.]+)", chart) == [("0.01", "0.200"), ("0.1", "0.450"), ("1", "0.200")]
    assert chart.count("one run") == 6
    assert 'data-curve="chosen rate"' in chart
    assert re.findall(r'<g class="curve (\w+)"><circle', page) == ["seed"] * page.count('<ul class="legend">')
    for figure in ("accuracy_ft", "rec2ftp", "sim_aou", "sim_am", "kendall"):
        assert (sweep / f"sweep_{figure}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flags", [["--check"], ["--tables", "accuracy"], ["--intervals"]], ids=lambda flags: flags[0])
def test_what_a_sweep_has_not_is_refused_by_name(
    flags: list[str], sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(sweep), *flags])
    assert stopped.value.code == 2
    assert f"Leave {flags[0]} out" in capsys.readouterr().err


def test_a_sweep_is_found_wherever_its_folder_stands(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is hidden inside the folder is a run under way."""
    (hidden := sweep.parent / ".cache").mkdir()
    sweep.rename(hidden / "sweep")
    assert len(read_sweep(hidden / "sweep")) == 12
    monkeypatch.chdir(hidden / "sweep" / "builtin")
    assert len(read_sweep(Path(".."))) == 12
    (hidden / "sweep" / "builtin" / "cb").rename(hidden / "sweep" / "builtin" / ".cb.part")
    assert len(read_sweep(hidden / "sweep")) == 6


def test_a_sweep_is_reported_alone(sweep: Path) -> None:
    with pytest.raises(SystemExit):
        main(["report", str(sweep), str(sweep)])


def test_a_sweep_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(OutputError, match="no run is finished"):
        read_sweep(tmp_path)
