"""Differences from controls as the report shows them, against results.json and the normal distribution."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from made_runs import repetition, save
from scipy.stats import false_discovery_control

from lightning_icl.report.grid import grid_to_csv, grid_to_markdown
from lightning_icl.report.paired import PairedTest, mean_test, paired_grid
from lightning_icl.results import read_run

FLOOR = 2 / 1001
"""The smallest p-value that a thousand replicates can give."""
UNDEFINED = {"difference": None, "low": None, "high": None, "p": None}


def with_tests(task: str, tests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    controls = {name: {"title": "Fresh weights" if name == "untrained" else "Order"} for name in tests}
    return repetition(task) | {"controls": controls, "paired": tests}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    sim_aou = {"difference": 0.045, "low": -0.01, "high": 0.1, "p": 0.0519}
    tests = {
        "untrained": {"sim_aou.value": sim_aou, "rec2ftp.value": UNDEFINED},
        "order-1": {"rec2ftp.value": {"difference": -0.125, "low": -0.6, "high": 0.4, "p": 0.7}},
        "order-2": {"rec2ftp.value": {"difference": 0.25, "low": 0.2, "high": 0.3, "p": FLOOR}},
    }
    folder = save(tmp_path / "run", with_tests("sst2", tests))
    rec2ftp = {"difference": 0.5, "low": 0.25, "high": 1.0, "p": FLOOR}
    return save(folder, with_tests("cb", {"untrained": {"sim_aou.value": sim_aou, "rec2ftp.value": rec2ftp}}))


def test_each_control_has_difference_p_and_interval(run: Path) -> None:
    sst2 = next(task for task in read_run(run) if task.task == "sst2")
    grid = paired_grid([sst2])
    assert grid is not None
    assert grid.header == ("", "Rec2FTP", "SimAOU", "SimAM", "Kendall")
    assert grid.rows == (
        ("untrained", "–", "+0.045\np = 0.078\n−0.010 to 0.100", "–", "–"),
        ("order-1", "−12.5\np = 0.700\n−60 to 40", "–", "–", "–"),
        ("order-2", "+25.0\np ≤ 0.006\n20–30", "–", "–", "–"),
    )
    assert grid.notes[0].startswith("3 tests; p-values are corrected")
    assert "| +25.0<br>p ≤ 0.006<br>20–30 |" in grid_to_markdown(grid)


def test_a_mean_says_of_how_many_tasks_it_is_and_csv_holds_each_task(run: Path) -> None:
    grid = paired_grid(read_run(run))
    assert grid is not None
    assert grid.rows[0][1] == "+50.0\np ≤ 0.004\n25–100\n1 of 2 tasks"
    rows = list(csv.DictReader(io.StringIO(grid_to_csv(grid))))
    assert [(row["task"], row["control"], row["figure"]) for row in rows] == [
        ("cb", "untrained", "rec2ftp.value"), ("cb", "untrained", "sim_aou.value"),
        ("sst2", "untrained", "sim_aou.value"), ("sst2", "order-1", "rec2ftp.value"),
        ("sst2", "order-2", "rec2ftp.value"),
    ]  # fmt: skip
    assert [float(rows[0][name]) for name in ("difference", "low", "high", "p")] == [50.0, 25.0, 100.0, FLOOR]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_mean_of_normal_estimates_has_their_means_interval_and_p(sign: int) -> None:
    """Standard errors 0.3 and 0.4 add to 0.25 for the mean of two; at a mean of 0.5 that is z = 2, p = erfc(√2)."""
    reach = 1.959963984540054
    parts = [(sign * 0.2, 0.3), (sign * 0.8, 0.4)]
    tests = [PairedTest(difference=d, low=d - reach * error, high=d + reach * error, p=0.5) for d, error in parts]
    mean = mean_test(tests)
    assert mean is not None
    assert mean.difference == pytest.approx(sign * 0.5)
    assert (mean.low, mean.high) == pytest.approx((sign * 0.5 - reach * 0.25, sign * 0.5 + reach * 0.25))
    assert mean.p == pytest.approx(math.erfc(math.sqrt(2)))


def test_figures_that_a_control_cannot_change_do_not_differ() -> None:
    same = PairedTest(difference=0.0, low=0.0, high=0.0, p=1.0)
    mean = mean_test([same, same])
    assert mean is not None
    assert mean.p == 1.0


def test_p_values_of_a_table_are_scipys_over_its_tests_and_equal_figures_are_no_tests(tmp_path: Path) -> None:
    """What cannot differ does not count, so that it does not weaken the correction of what can."""
    values = [FLOOR, 0.01, 0.03, 0.04, 0.8]
    tests = {
        f"c{number}": {"sim_aou.value": {"difference": 0.1, "low": 0.0, "high": 0.2, "p": p}}
        for number, p in enumerate(values)
    }
    tests["calibration"] = {"sim_aou.value": {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}}
    grid = paired_grid(read_run(save(tmp_path / "run", with_tests("sst2", tests))))
    assert grid is not None
    lines = list(csv.DictReader(io.StringIO(grid_to_csv(grid))))
    assert [float(line["p"]) for line in lines] == values
    assert [float(line["p_corrected"]) for line in lines] == pytest.approx(false_discovery_control(values))
    assert grid.notes[0].startswith("5 tests")
    assert grid.notes[1].startswith("1 comparisons that a control cannot change")


def test_a_run_without_paired_tests_has_no_table(tmp_path: Path) -> None:
    assert paired_grid(read_run(save(tmp_path / "old", repetition()))) is None
