"""LaTeX tables: signs are escaped, and what is written compiles without a line that is too wide."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_runs import repetition, save

from lightning_icl.report._latex import grid_to_latex
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.grid import Grid
from lightning_icl.report.paired import paired_grid
from lightning_icl.report.seeds import seeds_grid
from lightning_icl.report.tables import summary_grid
from lightning_icl.results import read_run


def test_signs_are_escaped() -> None:
    text = "a|b & 50%_\\{x} <0.1 -- ≤"
    written = grid_to_latex(Grid(name="g", title=text, header=("", "v"), rows=((text, "−1.0"),)))
    assert r"a\textbar{}b \& 50\%\_\textbackslash{}\{x\} \textless{}0.1 -{}- $\le$ & $-$1.0 \\" in written


def test_rows_below_a_measure_are_indented_and_small_print_has_rows() -> None:
    grid = Grid(name="g", title="t", header=("", "v"), rows=(("SimAOU\n  interval", "0.1\n0–1"), ("  raw", "0.2")))
    assert (
        "SimAOU & 0.1 \\\\\n\\quad \\scriptsize interval & \\scriptsize 0--1 \\\\\n\\quad raw & 0.2"
        in grid_to_latex(grid)
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_tables_compile_and_fit_the_page(tmp_path: Path) -> None:
    difference = {"difference": -0.0123, "low": -0.1, "high": 0.1, "p": 0.002}
    paired = {
        f"control-{number}": {f"{level}.value": difference for level in ("rec2ftp", "sim_aou", "sim_am", "kendall")}
        for number in range(18)
    }
    controls = {name: {"title": "100% of a_b <c> & {d} ~ ^ $ # in words", "sim_aou": {"value": 0.1}} for name in paired}
    for task in ("sst2", "sst5", "mr", "subj", "agnews", "cb"):
        save(tmp_path / "run", repetition(task) | {"controls": controls, "paired": paired})
    run = read_run(tmp_path / "run")
    grids = [summary_grid(run, intervals=True), controls_grid(run), paired_grid(run), seeds_grid([run, run])]
    packages = next(line for line in grid_to_latex(grids[0]).splitlines() if line.startswith("% ")) if grids[0] else ""
    tables = "\n".join(grid_to_latex(grid) for grid in grids if grid)
    document = f"\\documentclass{{article}}\n{packages[2:]}\n\\begin{{document}}\n{tables}\n\\end{{document}}\n"
    (tmp_path / "tables.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert not re.search(r"Overfull \\hbox|Float too large", done.stdout), done.stdout
