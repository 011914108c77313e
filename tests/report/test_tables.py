"""Tables from saved results: what is undefined stays a dash, published figures stand beside the paper's models."""

import csv
import io
import json
from pathlib import Path

import pytest

from lightning_icl.errors import OutputError
from lightning_icl.report.render import summary_lines, to_csv, to_markdown
from lightning_icl.report.show import print_summary
from lightning_icl.report.tables import summarise
from lightning_icl.results import read_run


def save(folder: Path, task: str, number: int, model: str, rec2ftp: float | None) -> None:
    (folder / task).mkdir()
    content = {
        "schema": 1,
        "task_number": number,
        "model": {"name": model},
        "task": {"name": task},
        "accuracy": {"zsl": 0.5, "icl": 0.75, "ft": 0.625},
        "rec2ftp": {"value": rec2ftp},
        "sim_aou": {"value": 0.1234, "random": -0.0001, "raw": 0.05},
        "sim_am": {"value": 0.5, "zsl": 0.4, "difference": None},
        "kendall": {"value": 0.2, "random": 0.0},
        "undefined": {} if rec2ftp is not None else {"rec2ftp.value": "fine-tuning corrected no query"},
    }
    (folder / task / "results.json").write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save(tmp_path, "sst2", 0, "KoboldAI/fairseq-dense-1.3B", 0.9)
    save(tmp_path, "cb", 1, "KoboldAI/fairseq-dense-1.3B", None)
    return tmp_path


def test_tasks_stand_in_the_order_they_were_run_and_means_leave_out_what_is_undefined(run: Path) -> None:
    summary = summarise(read_run(run))
    assert summary.tasks == ("sst2", "cb")
    rec2ftp = next(row for row in summary.rows if row.quantity.label == "Rec2FTP")
    assert rec2ftp.values == (pytest.approx(90.0), None)
    assert rec2ftp.mean == pytest.approx(90.0)
    assert summary.notes == ("cb: rec2ftp.value is undefined: fine-tuning corrected no query",)


def test_published_figures_stand_beside_the_papers_models(run: Path) -> None:
    summary = summarise(read_run(run))
    zsl = summary.rows[0]
    assert zsl.published == (70.5, 37.5)
    assert summary.rows[6].quantity.label == "raw"
    assert summary.rows[6].published is None


def test_other_models_have_no_published_figures(tmp_path: Path) -> None:
    save(tmp_path, "sst2", 0, "gpt2", 0.9)
    assert all(row.published is None for row in summarise(read_run(tmp_path)).rows)


def test_markdown_and_csv_hold_the_same_numbers(run: Path) -> None:
    summary = summarise(read_run(run))
    markdown = to_markdown(summary)
    assert "| ZSL accuracy | 50.0 | 50.0 | 50.0 |" in markdown
    assert "| *published* | *70.5* | *37.5* | *54.0* |" in markdown
    assert "| Rec2FTP | 90.00 | – | 90.00 |" in markdown
    assert "|   random | 0.000 | 0.000 | 0.000 |" in markdown
    rows = list(csv.DictReader(io.StringIO(to_csv(summary))))
    wanted = [
        row["value"]
        for row in rows
        if (row["task"], row["quantity"], row["source"]) == ("sst2", "sim_aou.value", "measured")
    ]
    assert wanted == ["0.1234"]


def test_tables_can_be_chosen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(run, ["kendall"])
    printed = capsys.readouterr().out
    assert "Kendall" in printed
    assert "SimAOU" not in printed
    with pytest.raises(OutputError, match="Did you mean 'simaou'"):
        summarise(read_run(run), ["sim_aou"])


def test_a_part_of_the_tasks_can_be_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(run, tasks=["cb"])
    assert "sst2" not in capsys.readouterr().out


def test_rec2ftp_of_few_queries_looks_as_uncertain_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wilson's interval of 4 of 4 is 51 to 100; six tasks with it must fit a terminal of 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("lightning_icl.report.show._WIDE", 100)
    for number in range(6):
        save_with_intervals(tmp_path, f"tiny-{number}cde", number)
    print_summary(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("51–100") for line in lines if line.startswith("│   interval")] == [6]
    assert "0.110" not in "".join(lines)
    assert max(map(len, lines)) <= 100
    print_summary(tmp_path, intervals=True)
    printed = capsys.readouterr().out
    assert "37.5–100.0" in printed
    assert "-0.120 to" in printed


def save_with_intervals(folder: Path, task: str, number: int) -> None:
    save(folder, task, number, "gpt2", 1.0)
    path = folder / task / "results.json"
    content = json.loads(path.read_text())
    content["intervals"] = {
        "rec2ftp.value": [0.5101, 1.0],
        "accuracy.icl": [0.375, 1.0],
        "sim_aou.value": [-0.12, 0.11],
        "kendall.value": None,
    }
    path.write_text(json.dumps(content))


def test_a_figure_without_an_interval_has_no_line_for_it(tmp_path: Path) -> None:
    save_with_intervals(tmp_path, "sst2", 0)
    save(tmp_path, "cb", 1, "gpt2", None)
    lines = list(summary_lines(summarise(read_run(tmp_path)), intervals=True))
    assert [line.cells for line in lines if line.kind == "interval"] == [
        ("  interval", "37.5–100.0", "", ""),
        ("  interval", "51–100", "", ""),
        ("  interval", "-0.120 to 0.110", "", ""),
    ]


def test_csv_holds_both_ends_of_an_interval(tmp_path: Path) -> None:
    save_with_intervals(tmp_path, "sst2", 0)
    rows = {row["quantity"]: row for row in csv.DictReader(io.StringIO(to_csv(summarise(read_run(tmp_path)))))}
    assert (float(rows["accuracy.icl"]["low"]), float(rows["accuracy.icl"]["high"])) == (37.5, 100.0)
    assert (rows["kendall.value"]["low"], rows["kendall.value"]["high"]) == ("", "")
