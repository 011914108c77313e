"""A sweep's numbers are those of separate comparisons, made with the fewest observations, and survive a kill."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from lightning_icl.cli import main
from lightning_icl.measures import table_figures
from lightning_icl.models.capture import Capture
from lightning_icl.probing.observation import View
from lightning_icl.records import Observation, QueryBatch
from lightning_icl.report.sweep import choose, summarise
from lightning_icl.sweeping.plan import make_sweep_plan
from lightning_icl.sweeping.settings import PAPER_RATES, SweepSettings

PLAN = ["--task", "tiny-cb", "--shots", "4", "--seeds", "1,2", "--lrs", "0.1,0.5,1e38", "--limit", "12"]
SMALL = [*PLAN, "--heldout", "16"]


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def runs_of(out: Path) -> dict[str, dict]:
    return {str(path.parent.relative_to(out)): json.loads(path.read_text()) for path in sorted(out.rglob("run.json"))}


def numbers(content: object, name: str = "") -> Iterator[tuple[str, float | None]]:
    """Every figure in a JSON value with its place."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from numbers(value, f"{name}.{key}")
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from numbers(value, f"{name}[{number}]")
    else:
        yield name, content


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """A finished sweep, and how many batches were observed under each condition."""
    seen: Counter[str] = Counter()
    observe = View.observe

    def counting(view: View, capture: Capture, batch: QueryBatch) -> Observation:
        seen[view.condition.name] += 1
        return observe(view, capture, batch)

    out = tmp_path_factory.mktemp("sweep") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(View, "observe", counting)
        patch.setattr("lightning_icl.sweeping.commands.forward_rate", lambda model, data: 1.0)
        main(["sweep", *SMALL, "--select", "paper", "--out", str(out)])
    return out, seen


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "out"
    main(["sweep", *SMALL, "--out", str(out)])
    return out


def test_zero_shot_is_observed_once_and_in_context_once_for_each_seed(counted: tuple[Path, Counter[str]]) -> None:
    _, seen = counted
    kinds = Counter(name.split("/")[0] for name in seen)
    assert kinds == {"zsl": 1, "icl": 2, "ft": 4}  # 1e38 diverges while it is fine-tuned
    assert len(set(seen.values())) == 1, seen


def test_a_unit_equals_a_comparison_of_its_own(swept: Path, tmp_path: Path) -> None:
    alone = ["--task", "tiny-cb", "--shots", "4", "--seed", "2", "--lr", "0.5", "--limit", "12"]
    main(["compare", *alone, "--out", str(tmp_path / "alone")])
    expected = json.loads((tmp_path / "alone" / "tiny-cb" / "results.json").read_text())
    run = runs_of(swept)["builtin/tiny-cb/shots-4/seed-2/lr-0.5"]
    assert run["accuracy"] == {view: expected["accuracy"][view] for view in run["accuracy"]}
    # Its steps were taken beside those of other rates: the same but for rounding.
    for name in ("loss", "update_norm_per_layer"):
        assert run["finetune"][name] == pytest.approx(expected["finetune"][name], rel=1e-4)
    own = {level: expected[level] for level in run["comparison"]}
    figures, wanted = dict(numbers(run["comparison"])), dict(numbers(own))
    assert figures.keys() == wanted.keys()
    for name, value in figures.items():
        assert value == pytest.approx(wanted[name], abs=1e-6), name


def test_a_rate_that_diverges_is_recorded_and_never_selected(swept: Path) -> None:
    rows = rows_of(swept)
    assert [row["lr"] for row in rows if row["diverged"]] == ["1e+38", "1e+38"]
    assert all(row["accuracy_ft"] == "" and row["selected"] == "False" for row in rows if row["diverged"])
    assert sum(row["selected"] == "True" for row in rows) == 1


def test_a_rate_that_yields_nan_when_observed_disturbs_no_other(tmp_path: Path) -> None:
    plan = ["--task", "tiny-cb", "--shots", "1", "--seeds", "1", "--limit", "12", "--heldout", "16"]
    main(["sweep", *plan, "--lrs", "1e38,0.1", "--out", str(tmp_path / "both")])
    main(["sweep", *plan, "--lrs", "0.1", "--out", str(tmp_path / "alone")])
    both, alone = runs_of(tmp_path / "both"), runs_of(tmp_path / "alone")
    unit = "builtin/tiny-cb/shots-1/seed-1"
    assert "NaN or infinite numbers for query" in both[f"{unit}/lr-1e+38"]["diverged"]
    assert both[f"{unit}/lr-0.1"] == alone[f"{unit}/lr-0.1"]


def test_parquet_and_csv_hold_the_same(swept: Path) -> None:
    columns = parquet.read_table(swept / "sweep.parquet").to_pylist()
    for row, text in zip(columns, rows_of(swept), strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == text


def test_held_out_rows_are_in_no_demonstration_and_no_query() -> None:
    settings = SweepSettings(task="tiny-cb", seeds="1,2,3", shots="4,9", limit=40, heldout=500)
    task = make_sweep_plan(settings).tasks[0]
    data = next(iter(task.data.values()))
    used = {index for item in task.data.values() for index in item.demonstrations.indices}
    assert len(used) > 20
    assert not used & {query.index for query in task.held_out}
    examples = [example for item in task.data.values() for example in item.demonstrations.examples]
    for query in task.held_out:
        assert all(example[: len(query.prompt_ids)] != query.prompt_ids for example in examples)
        assert all(query.prompt_ids != reported.prompt_ids for reported in data.queries)


def test_selection_on_held_out_rows_never_looks_at_reported_labels(swept: Path) -> None:
    def chosen(reported: float) -> list[bool]:
        rows = [
            {"lr": lr, "seed": seed, "heldout_accuracy": held, "accuracy_ft": reported * seed, "diverged": None}
            | {"selected_by": "heldout", "selected": False}
            for lr, seed, held in ((0.2, 1, 0.5), (0.1, 2, 0.75), (0.1, 1, 0.75))
        ]
        choose(rows)
        return [bool(row["selected"]) for row in rows]

    assert chosen(1.0) == chosen(-1.0) == [False, False, True]
    best = max(float(row["heldout_accuracy"]) for row in rows_of(swept) if not row["diverged"])
    assert [float(row["heldout_accuracy"]) for row in rows_of(swept) if row["selected"] == "True"] == [best]


def test_a_finished_sweep_is_not_made_again(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning_icl.models.subject.load_model", lambda *_, **__: pytest.fail("loaded"))
    before = (swept / "sweep.csv").read_bytes()
    main(["sweep", *SMALL, "--out", str(swept)])
    assert "0 to make" in capsys.readouterr().out
    assert (swept / "sweep.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [(["--heldout", "20"], "--heldout"), (["--seeds", "1,2,3"], "--seeds"), (["--lrs", "0.1"], "--lrs lacks")],
)
def test_another_plan_in_the_same_folder_is_refused(
    swept: Path, change: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", *SMALL, *change, "--out", str(swept)])
    assert named in capsys.readouterr().err


def test_a_killed_sweep_goes_on_to_the_same_numbers(swept: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*SMALL, "--overlay-memory", "1e-6", "--out", str(out)]  # one run a pass
    killed = subprocess.Popen(
        [sys.executable, "-m", "lightning_icl.cli", "sweep", *command],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    while not list(out.glob("builtin/**/run.json")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    first = {path: path.stat().st_mtime_ns for path in out.glob("builtin/**/run.json")}
    assert 0 < len(first) < 6
    main(["sweep", *SMALL, "--out", str(out)])
    assert all(path.stat().st_mtime_ns == made for path, made in first.items())
    assert runs_of(out) == runs_of(swept)
    assert (out / "sweep.csv").read_bytes() == (swept / "sweep.csv").read_bytes()
    assert not list(out.rglob(".*"))


def test_parts_make_the_whole_between_them(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("1/2", "0/2"):
        main(["sweep", *SMALL, "--part", part, "--out", str(tmp_path / "out")])
        assert "3 to make" in capsys.readouterr().out
    main(["sweep", *SMALL, "--collect", "--out", str(tmp_path / "out")])
    assert runs_of(tmp_path / "out") == runs_of(swept)
    assert (tmp_path / "out" / "sweep.csv").read_bytes() == (swept / "sweep.csv").read_bytes()


def test_a_sweep_grows_by_a_rate_without_making_the_others_again(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = [*SMALL[: SMALL.index("--lrs")], "--lrs", "0.5", *SMALL[SMALL.index("--lrs") + 2 :]]
    main(["sweep", *fewer, "--out", str(tmp_path / "out")])
    capsys.readouterr()
    main(["sweep", *SMALL, "--out", str(tmp_path / "out")])
    assert "6 runs in the plan; 4 to make" in capsys.readouterr().out
    assert runs_of(tmp_path / "out") == runs_of(swept)


def test_a_full_disk_leaves_no_half_run_and_the_sweep_goes_on(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, write = [], Path.write_text

    def full(path: Path, *arguments: object, **names: object) -> int:
        if path.name == "run.json":
            written.append(path)
            if len(written) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *arguments, **names)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(SystemExit):
            main(["sweep", *SMALL, "--out", str(tmp_path / "out")])
    assert "No space left" in capsys.readouterr().err
    assert len(runs_of(tmp_path / "out")) == 2
    main(["sweep", *SMALL, "--out", str(tmp_path / "out")])
    assert runs_of(tmp_path / "out") == runs_of(swept)


def test_a_dry_run_prints_the_cost_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sweep", *SMALL, "--dry-run", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "6 runs, passes over queries: 1, 24 fine-tuning steps" in printed
    assert not (tmp_path / "out").exists()


def test_the_standard_error_over_seeds_is_that_of_the_mean() -> None:
    base = {"model": "m", "task": "t", "shots": 4, "lr": 0.1, "selected_by": "paper", "diverged": None}
    names = (*(figure.name for figure in table_figures()), "heldout_accuracy")
    rows = [
        base | dict.fromkeys(names, value) | {"seed": seed, "selected": seed == 1}
        for seed, value in ((1, 1.0), (2, 4.0))
    ]
    (line,) = summarise(rows)
    assert line["kendall_mean"] == 2.5
    assert line["kendall_standard_error"] == pytest.approx(1.5)  # |4 - 1| / 2, for two values


def test_the_papers_rates_are_thirty_six() -> None:
    assert set(PAPER_RATES) == {float(f"{digit}e-{power}") for digit in range(1, 10) for power in range(1, 5)}
    assert len(PAPER_RATES) == 36
