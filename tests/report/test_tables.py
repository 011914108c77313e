"""Tables from saved results: what is undefined stays a dash, published figures stand beside the paper's models."""

import csv
import io
import json
from pathlib import Path

import pytest

from lightning_icl.errors import OutputError
from lightning_icl.report.render import to_csv, to_markdown
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
