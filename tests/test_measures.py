"""A new measure is a row of the table: a made-up one is seen everywhere without another line of the package."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_runs import LAYERS, repetition, save

from lightning_icl import measures
from lightning_icl.cli import main
from lightning_icl.measures import FIGURES, Figure, Measure
from lightning_icl.published import tables
from lightning_icl.report.sweep import row_of, summarise, summary_grid

MADE_UP = Measure(level="made_up", name="MadeUp", title="MadeUp: nothing", reading="Nothing at all.", tolerance=0.1)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that has measured something new, with a control."""
    made_up = Figure(MADE_UP, "value", "MadeUp", column="MadeUp", curve="made-up line")
    monkeypatch.setattr(measures, "FIGURES", (*FIGURES, made_up))
    level = {"value": 0.4321, "per_layer": [0.4321] * LAYERS}
    changes: dict[str, Any] = {
        "made_up": level,
        "controls": {"untrained": {"title": "Fresh", "made_up": level | {"value": 0.1234}}},
        "paired": {"untrained": {"made_up.value": {"difference": 0.3087, "low": 0.2, "high": 0.4, "p": 0.01}}},
    }
    return save(tmp_path / "run", repetition() | changes)


def test_a_made_up_measure_is_in_tables_files_and_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(run), "--export", "--html", str(run / "page.html")])
    printed = capsys.readouterr().out
    assert [line.split("│")[2].strip() for line in printed.splitlines() if line.startswith("│ MadeUp")] == ["0.432"]
    assert "+0.309" in printed
    lines = list(csv.DictReader(io.StringIO((run / "summary.csv").read_text())))
    assert [line["value"] for line in lines if line["quantity"] == "made_up.value"] == ["0.4321"]
    page = (run / "page.html").read_text()
    for words in ("MadeUp: nothing", "Nothing at all.", "made-up line", "0.123"):
        assert words in page
    assert (run / "made_up.png").is_file()


def test_a_made_up_measure_is_a_table_of_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(run), "--tables", "madeup"])
    assert "SimAOU" not in capsys.readouterr().out.split("The same figures")[0]


@pytest.mark.usefixtures("run")
def test_a_made_up_measure_is_a_column_of_a_sweep() -> None:
    levels = {level: {"value": 0.5} for level in measures.compared_levels()}
    content = {
        "model": "m", "task": "t", "shots": 4, "lr": 0.1, "queries": 9, "diverged": None,
        "demonstrations": {"count": 4}, "selection": {"select": "heldout", "accuracy": 0.5},
        "accuracy": {"zsl": 0.5, "icl": 0.5, "ft": 0.5}, "comparison": levels,
    }  # fmt: skip
    rows = [row_of(content | {"seed": seed}) for seed in (1, 2)]
    rows[1] |= {"made_up": 0.7}
    rows[0]["selected"] = True
    grid = summary_grid(rows, summarise(rows))
    assert rows[0]["made_up"] == 0.5
    assert grid.rows[0][grid.header.index("MadeUp")] == "0.600\n± 0.100"


def test_every_published_figure_is_in_the_papers_tables() -> None:
    """The paper's tables have these quantities for each model size, and no other but seed and learning rate."""
    named = {figure.name for figure in FIGURES if figure.published}
    for size in tables().values():
        assert size.keys() - {"seed", "learning_rate"} == named


def test_every_figure_is_described_where_saved_files_are() -> None:
    """Names are derived from keys, so each must be a key that the schema of `results.json` knows in its level."""
    schema = json.loads((Path(measures.__file__).parent / "schemas" / "results.json").read_text())
    for figure in FIGURES:
        level = schema["$defs"][schema["properties"][figure.measure.level]["$ref"].rsplit("/", 1)[1]]
        keys = [
            figure.key,
            *([figure.per_layer] if figure.curve else []),
            *([figure.per_head] if figure.by_head else []),
        ]
        for key in keys:
            patterns = level.get("patternProperties", {})
            assert key in level.get("properties", {}) or any(re.search(pattern, key) for pattern in patterns), key
