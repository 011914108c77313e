"""Tables from saved results: what is undefined stays a dash, and no width breaks a figure or cuts a name."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from lightning_icl.errors import OutputError
from lightning_icl.measures import FIGURES
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.figures import shown, signed
from lightning_icl.report.grid import Grid, grid_to_csv, grid_to_markdown, turned
from lightning_icl.report.show import print_summary
from lightning_icl.report.tables import summary_grid, summary_rows
from lightning_icl.results import read_run

INTERVALS = {
    "rec2ftp.value": [0.5101, 1.0],
    "accuracy.icl": [0.375, 1.0],
    "sim_aou.value": [-0.12, 0.11],
    "kendall.value": None,
}


def save(folder: Path, task: str, number: int, model: str, rec2ftp: float | None, **changes: Any) -> None:
    (folder / task).mkdir()
    content = {
        "schema": 1,
        "task_number": number,
        "model": {"name": model},
        "task": {"name": task},
        "accuracy": {"zsl": 0.5, "icl": 0.75, "ft": 0.625},
        "rec2ftp": {"value": rec2ftp, "corrected_by_ft": 4},
        "sim_aou": {"value": 0.1234, "random": -0.0001, "raw": 0.05},
        "sim_am": {"value": 0.5, "zsl": 0.4, "difference": None},
        "kendall": {"value": 0.2, "random": 0.0},
        "undefined": {} if rec2ftp is not None else {"rec2ftp.value": "fine-tuning corrected no query"},
    }
    (folder / task / "results.json").write_text(json.dumps(content | changes))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save(tmp_path, "sst2", 0, "KoboldAI/fairseq-dense-1.3B", 0.9)
    save(tmp_path, "cb", 1, "KoboldAI/fairseq-dense-1.3B", None)
    return tmp_path


def row_of(grid: Grid, name: str) -> tuple[str, ...]:
    return next(row for row in grid.rows if row[0].split("\n")[0] == name)


def test_tasks_stand_in_the_order_they_were_run_and_means_leave_out_what_is_undefined(run: Path) -> None:
    grid = summary_grid(read_run(run))
    assert grid.header == ("", "sst2", "cb", "mean")
    assert row_of(grid, "Rec2FTP") == ("Rec2FTP\n  corrected by FT", "90.0\n4", "–\n4", "90.0")
    assert grid.notes == ("cb: rec2ftp.value is undefined: fine-tuning corrected no query",)


def test_one_task_has_no_mean(tmp_path: Path) -> None:
    save(tmp_path, "sst2", 0, "gpt2", 0.9)
    assert summary_grid(read_run(tmp_path)).header == ("", "sst2")


def test_published_figures_stand_beside_the_papers_models(run: Path) -> None:
    rows = {row.figure.path: row for row in summary_rows(read_run(run))}
    assert rows["accuracy.zsl"].published == (70.5, 37.5)
    assert rows["sim_aou.raw"].published is None


def test_other_models_have_no_published_figures(tmp_path: Path) -> None:
    save(tmp_path, "sst2", 0, "gpt2", 0.9)
    assert all(row.published is None for row in summary_rows(read_run(tmp_path)))


def test_markdown_and_csv_hold_the_same_numbers(run: Path) -> None:
    grid = summary_grid(read_run(run))
    markdown = grid_to_markdown(grid)
    assert "| ZSL accuracy | 50.0 | 50.0 | 50.0 |" in markdown
    assert "| &emsp;published | 70.5 | 37.5 | 54.0 |" in markdown
    assert "| Rec2FTP<br>&emsp;corrected by FT | 90.0<br>4 | –<br>4 | 90.0 |" in markdown
    assert "| &emsp;random | 0.000 | 0.000 | 0.000 |" in markdown
    rows = list(csv.DictReader(io.StringIO(grid_to_csv(grid))))
    chosen = ("sst2", "sim_aou.value", "measured")
    assert [row["value"] for row in rows if (row["task"], row["quantity"], row["source"]) == chosen] == ["0.1234"]


def test_tables_can_be_chosen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(run, ["kendall"])
    printed = capsys.readouterr().out
    assert "Kendall" in printed
    assert "SimAOU" not in printed
    with pytest.raises(OutputError, match="Did you mean 'simaou'"):
        summary_grid(read_run(run), ["sim_aou"])


def test_a_part_of_the_tasks_can_be_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(run, tasks=["cb"])
    assert "sst2" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("accuracy.zsl", -12.345, "−12.3"), ("rec2ftp.value", 99.96, "100.0"), ("kendall.value", -0.0004, "0.000"),
        ("kendall.value", -0.0006, "−0.001"), ("kendall.value", None, "–"),
    ],
)  # fmt: skip
def test_digits_and_minus_sign_follow_one_rule(path: str, value: float | None, text: str) -> None:
    figure = next(figure for figure in FIGURES if figure.path == path)
    assert shown(figure, value) == text
    assert signed(figure, None if value is None else -value) == (
        f"+{text[1:]}" if text[0] == "−" else text.replace("100", "−100")
    )


def test_rec2ftp_of_few_queries_looks_as_uncertain_as_it_is(tmp_path: Path) -> None:
    """Wilson's interval of 4 of 4 is 51 to 100; of the mean of n alike tasks it reaches 1/√n as far."""
    for number in range(4):
        save(tmp_path, f"t{number}", number, "gpt2", 1.0, intervals=INTERVALS)
    grid = summary_grid(read_run(tmp_path))
    assert row_of(grid, "Rec2FTP")[1:] == (*["100.0\n51–100\n4"] * 4, "100.0\n76–100")
    assert row_of(grid, "SimAOU")[1] == "0.123"
    whole = summary_grid(read_run(tmp_path), intervals=True)
    assert row_of(whole, "ICL accuracy")[1] == "75.0\n38–100"
    assert row_of(whole, "SimAOU")[1] == "0.123\n−0.120 to 0.110"
    assert row_of(whole, "Kendall")[0] == "Kendall"


def test_csv_holds_both_ends_of_an_interval(tmp_path: Path) -> None:
    save(tmp_path, "sst2", 0, "gpt2", 1.0, intervals=INTERVALS)
    rows = {row["quantity"]: row for row in csv.DictReader(io.StringIO(grid_to_csv(summary_grid(read_run(tmp_path)))))}
    assert (float(rows["accuracy.icl"]["low"]), float(rows["accuracy.icl"]["high"])) == (37.5, 100.0)
    assert (rows["kendall.value"]["low"], rows["kendall.value"]["high"]) == ("", "")


NAMES = ("tiny-sst2", "tiny-agnews", "a-task-with-a-rather-long-name", "mr", "subj", "情感分析")
CONTROL = {"accuracy": {"zsl": 0.5}, "sim_aou": {"value": -0.1234}, "sim_am": {"value": 0.5}, "kendall": {"value": 0.2}}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_at_any_width_no_figure_is_broken_and_no_name_cut(
    tmp_path: Path, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    controls = {f"{name}-control": CONTROL | {"title": "What is done to the prompt in it"} for name in NAMES[:3]}
    for number, name in enumerate(NAMES):
        save(tmp_path, name, number, "gpt2", 1.0, intervals=INTERVALS, controls=controls)
    runs = read_run(tmp_path)
    print_summary(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    assert max(map(columns_of, lines)) <= width
    grids = [summary_grid(runs), controls_grid(runs)]
    for figure in {
        part for grid in grids if grid for row in grid.rows for cell in row[1:] for part in cell.split("\n")
    }:
        assert figure in text
    # A name may be broken into lines, but every one of its letters is there.
    unbroken = "".join(text.replace("│", " ").split())
    for name in (*NAMES, *controls):
        assert name in text or (len(name) > width // 3 and name[: width // 3] in unbroken)


def columns_of(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)


def test_a_table_too_wide_has_its_tasks_as_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for number, name in enumerate(NAMES):
        save(tmp_path, name, number, "gpt2", 1.0)
    print_summary(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if "tiny-agnews" in line]
    assert rows[0][:8] == ["│", "tiny-agnews", "│", "50.0", "│", "62.5", "│", "75.0"]
    assert {cell for row in rows for cell in row} >= {"100.0", "0.123", "0.050", "0.500", "0.200"}


def test_the_headings_of_a_turned_table_say_what_each_column_is() -> None:
    names = (
        "ZSL accuracy",
        "FT accuracy",
        "  majority class",
        "SimAOU\n  95% interval",
        "  published",
        "  raw",
        "  published",
    )
    grid = Grid(name="g", title="t", header=("", "v"), rows=tuple((name, "1") for name in names), sections=(3,))
    assert turned(grid).header == (
        "", "ZSL\naccuracy", "FT\naccuracy", "majority\nclass", "SimAOU\n95% interval", "SimAOU\npublished",
        "SimAOU\nraw", "SimAOU\nraw\npublished",
    )  # fmt: skip
    assert turned(grid).parts == (4,)


def test_tables_survive_the_signs_of_their_formats() -> None:
    text = 'a|b & 50%_\\{x}, "q" <i> *c*'
    grid = Grid(name="g", title=text, header=("", "v"), rows=((text, "−1.0"), ("=1+1", "+0.5"), ("@x", "-y")))
    lines = list(csv.reader(io.StringIO(grid_to_csv(grid))))
    assert lines[1:] == [[text, "-1.0"], ["'=1+1", "+0.5"], ["'@x", "'-y"]]
    assert 'a\\|b & 50%\\_\\\\{x}, "q" &lt;i&gt; \\*c\\*' in grid_to_markdown(grid)
