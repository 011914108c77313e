"""Saved files that were cut, edited, or hold names that no format expects."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_runs import LAYERS, repetition, save
from outside_case import Case, check_case, run_command

from lightning_icl.cli import main
from lightning_icl.errors import OutputError
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.grid import grid_to_csv
from lightning_icl.report.outcomes import right_grid
from lightning_icl.report.page.html import run_page, side_page
from lightning_icl.report.show import print_summary
from lightning_icl.report.tables import summary_grid
from lightning_icl.results import read_run

RESULTS = "run/sst2/results.json"
REPORT = "report run --html page.html"
WHOLE = json.dumps(repetition())
LEAST = json.dumps({"schema": 1, "model": {"name": "m"}, "task": {"name": "t"}})


def edited(**changes: Any) -> Callable[[Path], None]:
    """A run whose `results.json` has other values; None takes a part away, a path has double underscores."""

    def make(here: Path) -> None:
        results = repetition()
        for path, value in changes.items():
            *parents, last = path.split("__")
            part: Any = results
            for name in parents:
                part = part[name]
            part.pop(last, None)
            if value is not None:
                part[last] = value
        save(here / "run", repetition(), queries=3)
        (here / RESULTS).write_text(json.dumps(results))

    return make


def written(name: str, text: str | bytes) -> Callable[[Path], None]:
    """A run one file of which holds something else."""

    def make(here: Path) -> None:
        save(here / "run", repetition(), queries=3)
        (here / "run" / "sst2" / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


def pair(**values: float) -> dict[str, Any]:
    return {"order": {"sim_aou.value": values}}


def choice(trial: dict[str, Any]) -> dict[str, Any]:
    return {"rate": 0.01, "held_out": 8, "trials": [trial]}


def line(**changes: Any) -> str:
    return json.dumps({"index": 1, "gold": 0, "zsl": 0, "icl": 1, "ft": 1, "prompt": "p"} | changes) + "\n"


def refused(situation: str, prepare: Callable[[Path], None], *says: str, arguments: str = REPORT) -> Case:
    return Case(situation=situation, arguments=arguments, prepare=prepare, says=says)


def shown(situation: str, prepare: Callable[[Path], None], *says: str, arguments: str = REPORT) -> Case:
    return Case(situation=situation, arguments=arguments, prepare=prepare, says=says, status=0, makes=["page.html"])


CASES = [
    refused("results cut in the middle", written("results.json", '{"schema": 1, "model"'), RESULTS, "JSON"),
    refused("results empty", written("results.json", ""), RESULTS, "JSON"),
    refused("results of bytes", written("results.json", b"\xff\xfe\x00\x01"), RESULTS, "cannot be read"),
    refused("results a list", written("results.json", "[]"), RESULTS, "must be an object"),
    refused("results with NaN", written("results.json", '{"schema": 1, "x": NaN}'), RESULTS, "NaN is no number"),
    refused("results nested without end", written("results.json", "[" * 100_000), RESULTS, "recursion"),
    refused("a number of 5,000 digits", written("results.json", "9" * 5000), RESULTS, "cannot be read"),
    refused("another schema", edited(schema=2), RESULTS, "has schema 2; this version"),
    refused("no schema", edited(schema=None), RESULTS, "'schema' is missing"),
    refused("no model", edited(model=None), RESULTS, "'model' is missing"),
    refused("a model without name", edited(model={"parameters": 1}), "'name' is missing in model"),
    refused("a model's name a number", edited(model__name=7), "model.name is 7, and must be text"),
    refused("a task as text", edited(task="sst2"), 'task is "sst2", and must be an object'),
    refused("an empty task name", edited(task__name=""), "task.name"),
    refused("task name a list", edited(task__name=["sst2"]), "task.name is"),
    refused("parameters as text", edited(model__parameters="1.3B"), "model.parameters", "a whole number"),
    refused("parameters below zero", edited(model__parameters=-1), "model.parameters is -1"),
    refused("parameters beyond all numbers", edited(model__parameters=10**400), "model.parameters is 1000"),
    refused("accuracy in percent", edited(accuracy__icl=87.5), "accuracy.icl is 87.5"),
    refused("a figure as text", edited(sim_aou__value="0.5"), 'sim_aou.value is "0.5", and must be a number or null'),
    refused("a figure true", edited(kendall__value=True), "kendall.value is true"),
    refused("a cosine of 3", edited(sim_am__value=3.0), "sim_am.value is 3.0"),
    refused("a level as a number", edited(kendall=0.2), "kendall is 0.2, and must be an object or null"),
    refused("a curve as a number", edited(sim_aou__per_layer=0.1), "sim_aou.per_layer is 0.1"),
    refused("text in a curve", edited(sim_aou__per_layer=[0.1, "x"] * 12), "sim_aou.per_layer[1]"),
    refused("a curve too short", edited(sim_aou__per_layer=[0.1]), RESULTS, "1 and 24 layers"),
    refused("a control's curve too long", edited(controls__untrained__sim_aou__per_layer=[0.1] * 99), "24 and 99"),
    refused("heads of different numbers", edited(sim_am__per_head=[[0.1]] * 23 + [[0.1, 0.2]]), "different lengths"),
    refused("a table of who was right cut", edited(rec2ftp__right_table=[[[1, 2]]]), "rec2ftp.right_table"),
    refused("an interval of one end", edited(intervals={"sim_aou.value": [0.1]}), "intervals"),
    refused("controls a list", edited(controls=["untrained"]), "controls is"),
    refused("a choice without its rows", edited(finetune__choice={"rate": 1, "trials": []}), "'held_out' is missing"),
    refused("a trial without its rate", edited(finetune__choice=choice({"loss": 1.0})), "'rate' is missing"),
    refused("a trial's loss as text", edited(finetune__choice=choice({"rate": 1.0, "loss": "low"})), "loss is"),
    shown("a choice of the least", edited(finetune__choice=choice({"rate": 0.01}))),
    shown("an update as large as numbers go", edited(finetune__update_norm_per_layer=[1e300] * LAYERS)),
    refused("a paired test without p", edited(paired=pair(difference=0)), "'low' is missing"),
    refused("a p-value of 7", edited(paired=pair(difference=0, low=0, high=0, p=7)), "p is 7"),
    refused("a seed that is a list", edited(demonstrations__seed=[1]), "demonstrations.seed"),
    refused("a loss beyond all numbers", written("results.json", WHOLE.replace("3.0", "1e999", 1)), RESULTS),
    refused("predictions cut", written("predictions.jsonl", line() + '{"index": 2, "go'), "predictions.jsonl', line 2"),
    refused("a prediction a list", written("predictions.jsonl", "[1]\n"), "line 1", "must be an object"),
    refused("a prediction without gold", written("predictions.jsonl", '{"index": 1}\n'), "'gold' is missing"),
    refused("a label as text", written("predictions.jsonl", line(icl="Positive")), 'icl is "Positive"'),
    refused("a score of NaN", written("predictions.jsonl", line(scores={"icl": [float("nan")]})), "NaN"),
    refused("scores a number", written("predictions.jsonl", line(scores={"icl": 1})), "scores.icl"),
    refused("a prompt that is a number", written("predictions.jsonl", line(prompt=1)), "prompt is 1"),
    refused("a folder without a run", lambda here: (here / "run").mkdir(), "holds no finished run"),
    refused("no folder at all", lambda here: None, "holds no finished run"),
    refused("a file in place of a folder", lambda here: (here / "run").write_text("x"), "holds no finished run"),
    shown("a byte order mark", lambda here: with_mark(here)),
    shown("markup of rich in names", edited(model__name="[/red][bold]m", task__name="[link=x]t[/]"), "[/red][bold]m"),
    shown("NUL and colours in a name", edited(model__name="a\0b\x1b[31mc"), "a\ufffdb\ufffd[31mc"),
    shown("half a surrogate pair", edited(model__name="a\ud800b", undefined={"sim_aou.value": "\udfff"}), "a\ufffdb"),
    shown("a dollar sign in names", edited(model__name="$\\frac", task__name="$a"), arguments=f"{REPORT} --export"),
    shown("names that begin with _", edited(controls={"_x": {"sim_aou": {"per_layer": [0.1] * LAYERS}}}), "_x"),
    shown("a task name that is a long path", edited(task__name="../../" + "t" * 300), arguments=f"{REPORT} --export"),
    shown("control names of 300 characters", edited(controls={"c" * 300: {"sim_aou": {"value": 0.1}}})),
    shown("a configuration of bytes", written("config.yaml", b"\xff\xfe\x00")),
    shown("lines of predictions that are empty", written("predictions.jsonl", f"\n{line()}\n\n")),
    shown("everything optional taken away", written("results.json", LEAST)),
]  # fmt: skip


def with_mark(here: Path) -> None:
    save(here / "run", repetition())
    path = here / RESULTS
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.situation)
def test_saved_files(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "export" in case.arguments:
        pytest.importorskip("matplotlib")
    check_case(case, tmp_path, monkeypatch, capsys)


def test_a_formula_in_a_name_stays_text_in_a_spreadsheet(tmp_path: Path) -> None:
    """Every cell of every CSV that a spreadsheet would compute is a number."""
    formula = '=HYPERLINK("http://x","y")'
    results = repetition() | {"controls": {formula: {"title": "@x", "sim_aou": {"value": -0.1}}}}
    results["model"]["name"], results["task"]["name"] = "+m", "-t"
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "results.json").write_text(json.dumps(results))
    run = read_run(tmp_path)
    grids = [summary_grid(run), controls_grid(run), right_grid(run[0].results)]
    cells = [cell for grid in grids if grid for row in csv.reader(io.StringIO(grid_to_csv(grid))) for cell in row]
    assert f"'{formula}" in cells
    for cell in cells:
        assert not cell.startswith(("=", "+", "-", "@")) or float(cell) < 1e9


def test_the_schema_fits_what_a_run_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a sweep's damaged files are refused by name."""
    arguments = "sweep --task tiny-sst2 --lrs 0.1 --seeds 1 --shots 2 --limit 3 --heldout 3".split()
    main([*arguments, "--out", str(tmp_path)])
    (path,) = tmp_path.rglob("run.json")
    whole = path.read_text()
    for text, says in (("{", "JSON"), ("[]", "object"), (whole.replace('"selection"', '"elections"'), "selection")):
        path.write_text(text)
        outcome = run_command([*arguments, "--out", str(tmp_path)], capsys)
        assert (outcome.status, "run.json" in outcome.err, says in outcome.err) == (2, True, True)
    path.write_text(whole)
    (tmp_path / "plan.json").write_text('{"schema": 1, "model": "builtin", "task": [], "lrs": []}')
    outcome = run_command([*arguments, "--out", str(tmp_path)], capsys)
    assert outcome.status == 2
    assert "plan.json': model is" in outcome.err


JUNK = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
JUNK = JUNK | st.lists(JUNK, max_size=3) | st.dictionaries(st.text(max_size=5), JUNK, max_size=3)


def shortened(value: Any) -> Any:
    """Three layers, heads and demonstrations in place of many."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    return [shortened(item) for item in value[:3]] if isinstance(value, list) else value


@st.composite
def damaged_results(draw: st.DrawFn) -> dict[str, Any]:
    """A whole result in which a few values, anywhere, are taken away, replaced or put in."""
    results = shortened(repetition(draw(st.sampled_from(["sst2", "cb"]))))
    results["paired"] = {"untrained": {"sim_aou.value": {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.01}}}
    for _ in range(draw(st.integers(1, 3))):
        part: Any = results
        while True:
            keys = list(range(len(part))) if isinstance(part, list) else list(part)
            key = draw(st.sampled_from(keys))
            if not (isinstance(part[key], dict | list) and part[key]) or draw(st.booleans()):
                break
            part = part[key]
        if draw(st.booleans()):
            part[key] = draw(JUNK)
        else:
            del part[key]
        if not results:
            break
    return results


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(results=damaged_results())
def test_a_damaged_result_is_reported_or_refused(
    results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else: no other exception, wherever the damage is."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "task").mkdir(parents=True)
    (folder / "task" / "results.json").write_text(json.dumps(results))
    with suppress(OutputError):
        runs = read_run(folder)
        print_summary(folder, intervals=True)
        run_page(runs)
        side_page([runs, runs])
    capsys.readouterr()
