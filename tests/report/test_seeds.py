"""Runs over seeds: their mean and standard error against numpy's, and which runs stand together."""

import copy
import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import LAYERS, repetition, save

from lightning_icl.cli import main
from lightning_icl.report.grid import grid_to_csv
from lightning_icl.report.layers import seed_curves
from lightning_icl.report.page.html import side_page
from lightning_icl.report.seeds import Run, same_task, seed_groups, seeds_grid
from lightning_icl.report.show import export_together
from lightning_icl.report.side_by_side import side_grid
from lightning_icl.results import read_run

SIM_AOU = {1: (0.10, 0.40), 2: (0.20, 0.10), 3: (0.60, 0.40)}
"""Of two tasks, by seed."""


def one(folder: Path, seed: int, probe_token: str = "answer", **changes: Any) -> Run:
    for task, value in zip(("sst2", "cb"), SIM_AOU[seed], strict=True):
        results = copy.deepcopy(repetition(task) | changes)
        results["task"]["probe_token"] = probe_token
        results["demonstrations"]["seed"] = seed
        results["finetune"]["lr"] = 0.01
        results["queries"] = {"count": 56}
        results["sim_aou"] |= {"value": value, "per_layer": [value] * LAYERS}
        if seed == 3:
            results["rec2ftp"]["value"] = None
        save(folder, results)
    return read_run(folder)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [one(tmp_path / f"seed-{seed}", seed) for seed in SIM_AOU]


def test_mean_and_standard_error_over_seeds_are_numpys(runs: list[Run]) -> None:
    grid = seeds_grid(runs)
    lines = [row for row in csv.DictReader(io.StringIO(grid_to_csv(grid))) if row["quantity"] == "sim_aou.value"]
    values = np.array(list(SIM_AOU.values()))
    by_task = dict(zip(("sst2", "cb", "mean"), (*values.T, values.mean(1)), strict=True))
    assert {line["task"] for line in lines} == by_task.keys()
    for line in lines:
        over_seeds = by_task[line["task"]]
        assert float(line["mean"]) == pytest.approx(over_seeds.mean())
        assert float(line["standard_error"]) == pytest.approx(over_seeds.std(ddof=1) / math.sqrt(3))
        assert line["seeds"] == "3"
    shown = next(row for row in grid.rows if row[0] == "SimAOU")
    assert shown[grid.header.index("sst2")] == "0.300\n± 0.153"
    assert shown[-1] == "0.300\n± 0.104"


def test_a_figure_undefined_in_a_seed_says_over_how_many_it_is(runs: list[Run]) -> None:
    rec2ftp = next(row for row in seeds_grid(runs).rows if row[0] == "Rec2FTP")
    assert all(cell.endswith("\n2 of 3 seeds") for cell in rec2ftp[1:])


def test_only_runs_that_differ_in_nothing_but_the_seed_stand_together(tmp_path: Path, runs: list[Run]) -> None:
    other_model = one(tmp_path / "model", 1, model={"name": "gpt2", "parameters": 1})
    again = one(tmp_path / "again", 2)
    other_probe = one(tmp_path / "probe", 3, probe_token="prompt")
    fewer_tasks = runs[0][:1]
    groups = seed_groups([runs[0], other_model, runs[1], again, other_probe, runs[2], fewer_tasks])
    assert groups == [[runs[0], runs[1], runs[2]], [other_model], [again], [other_probe], [fewer_tasks]]


def test_seeds_stand_together_whatever_their_draws_repeat_and_apart_where_they_were_made_from_other_things(
    tmp_path: Path,
) -> None:
    every = []
    for seed in SIM_AOU:
        run = one(tmp_path / str(seed), seed)
        for task in run:
            task.results["task"] |= {"repeated_queries": seed % 2, "joined_answers": ["Bad"][: seed - 1]}
        every.append(run)
    assert seed_groups(every) == [every]
    weights = one(tmp_path / "weights", 3, fingerprints={"weights": "other"})
    rows = one(tmp_path / "rows", 3, fingerprints={"rows": "other", "tokens": "any"})
    precision = one(tmp_path / "precision", 3, model=repetition()["model"] | {"precision": "bf16-mixed"})
    assert seed_groups([*every, weights, rows, precision]) == [every, [weights], [rows], [precision]]


def test_runs_that_chose_their_rates_stand_together_whatever_they_chose(runs: list[Run]) -> None:
    for rate, run in zip((0.01, 0.02, 0.03), runs, strict=True):
        for task in run:
            task.results["finetune"]["lr"] = rate
    assert len(seed_groups(runs)) == 3
    for run in runs[:2]:
        for task in run:
            task.results["finetune"]["choice"] = {"rate": task.results["finetune"]["lr"]}
    assert seed_groups(runs) == [runs[:2], [runs[2]]]


def test_layers_show_the_mean_and_every_seed(runs: list[Run]) -> None:
    sst2 = next(same for same in same_task(runs) if same[0].task == "sst2")
    curves = seed_curves(sst2, "sim_aou")
    assert [curve.values[0] for curve in curves if curve.role == "seed"] == [0.1, 0.2, 0.6]
    (mean,) = (curve for curve in curves if curve.role == "main")
    assert mean.values == pytest.approx([0.3] * LAYERS)
    untrained, order = (curve for curve in curves if curve.role == "control")
    assert (untrained.label, order.label) == ("untrained (3 runs)", "order (6 runs)")
    assert (set(order.values), set(order.upper or ())) == ({0.2}, {0.4})


def test_models_with_seeds_each_are_one_row_each(tmp_path: Path, runs: list[Run]) -> None:
    large = [one(tmp_path / f"large-{seed}", seed, model={"name": "gpt2", "parameters": 10**12}) for seed in (1, 3)]
    grid = side_grid(seed_groups([*large, *runs]))
    column = grid.header.index("SimAOU")
    assert [(row[3], row[column]) for row in grid.rows] == [("3", "0.300\n± 0.104"), ("2", "0.375\n± 0.125")]
    page = side_page([*large, *runs])
    assert "3 seeds (1, 2, 3)" in page
    assert "± 0.125 over 2 seeds" in page
    assert "mean over 3 seeds (1, 2, 3)" in side_page(runs)


def test_several_runs_are_exported_together(
    tmp_path: Path, runs: list[Run], capsys: pytest.CaptureFixture[str]
) -> None:
    other = one(tmp_path / "other", 1, model={"name": "gpt2", "parameters": 10**9})
    main(["report", *(str(run[0].folder.parent) for run in (*runs, other))])
    assert "± 0.153" in capsys.readouterr().out
    (out := tmp_path / "out").mkdir()
    made = {path.name for path in export_together(out, seed_groups([*runs, other]))}
    for name in ("seeds_1", "side_by_side"):
        for kind in ("md", "csv", "tex"):
            text = (out / f"{name}.{kind}").read_text().replace("$\\pm$", "±")
            assert "± 0.104" in text or "sim_aou.value" in text
    pictures = [f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")]
    assert made == {
        *pictures,
        *(f"{name}.{kind}" for name in ("seeds_1", "side_by_side") for kind in ("md", "csv", "tex")),
    }
    for name in pictures:
        content = (out / name).read_bytes()
        assert content.startswith(b"\x89PNG") or b"</svg>" in content


PICTURES = ("seeds_1_sim_aou", "seeds_1_sim_am", "seeds_1_kendall", "side_by_side")


def test_runs_that_differ_in_size_are_said_to_once_for_all_tasks(tmp_path: Path) -> None:
    for count in (56, 872):
        for number, task in enumerate(("sst2", "cb")):
            save(tmp_path / str(count), repetition(task) | {"queries": {"count": count}, "task_number": number})
    groups = [[read_run(tmp_path / str(count))] for count in (872, 56)]
    assert side_grid(groups).notes == ("sst2, cb: the runs differ in their number of queries (56, 872)",)
