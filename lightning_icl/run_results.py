"""A run's results as an object: tables, a tidy frame, the page, and its files, for programs and notebooks."""

import json
import shutil
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.errors import OutputError, UserError
from lightning_icl.measures import FIGURES
from lightning_icl.report.page.html import run_page, write_page
from lightning_icl.report.tables import model_name, summary_grid
from lightning_icl.report.terminal import print_grid
from lightning_icl.results import PREDICTIONS, TaskRun, read_run
from lightning_icl.saving.paths import output_path

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """What a comparison found.

    Args:
        folder: of a run, as `compare` and the command line leave it.
        passing: a temporary folder that goes when these results do.

    Raises:
        OutputError: the folder holds no finished run.
    """

    def __init__(self, folder: str | Path, passing: Path | None = None) -> None:
        self.folder = Path(folder)
        self._runs: list[TaskRun] = read_run(self.folder)
        if passing is not None:
            weakref.finalize(self, shutil.rmtree, passing, ignore_errors=True)

    @property
    def tasks(self) -> dict[str, Mapping[str, Any]]:
        """By task the content of its `results.json`, shares between 0 and 1; what is undefined is None."""
        return {run.task: run.results for run in self._runs}

    def __getitem__(self, task: str) -> Mapping[str, Any]:
        return self.tasks[task]

    def __repr__(self) -> str:
        return f"Results({model_name(self._runs)!r}, tasks: {', '.join(self.tasks)})"

    def table(self, *, intervals: bool = False, width: int = 100) -> str:
        """The summary as text.

        Args:
            intervals: whether every figure has its 95% interval.
            width: columns that it may take.
        """
        from rich.console import Console

        console = Console(width=width, color_system=None, force_terminal=False)
        with console.capture() as printed:
            print_grid(summary_grid(self._runs, intervals=intervals), console)
        return printed.get()

    def to_frame(self, *, layers: bool = False) -> "pd.DataFrame":
        """One row a figure: model, task, control (empty for the comparison itself), measure, figure, value, interval.

        Args:
            layers: whether each layer's value has a row too, numbered from 0.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise UserError("A frame needs pandas. Install it: pip install pandas") from error
        columns = ["model", "task", "control", "measure", "figure", "layer", "value", "low", "high"]
        frame = pd.DataFrame([row for run in self._runs for row in _rows(run, layers)], columns=columns)
        return frame.astype({"layer": "Int64", "value": float, "low": float, "high": float})

    def predictions(self, task: str) -> list[dict[str, Any]]:
        """Every query of a task: its row number, prompt, right answer, and scores of each answer by condition."""
        folder = next(run.folder for run in self._runs if run.task == task)
        return [json.loads(line) for line in (folder / PREDICTIONS).read_text(encoding="utf-8").splitlines()]

    def report(self, path: str | Path) -> Path:
        """Write the page with figures, curves, heads and every query.

        Args:
            path: the HTML file.

        Raises:
            OutputError: the file is there and is no report, or cannot be written.
        """
        page = output_path(str(path), "path")
        write_page(page, run_page(self._runs))
        return page

    def save(self, folder: str | Path) -> Path:
        """Keep the run's files, for `lightning-icl report` and `Results(folder)`.

        Args:
            folder: a new one.

        Raises:
            OutputError: it exists, or cannot be written.
        """
        to = output_path(str(folder), "folder")
        try:
            shutil.copytree(self.folder, to)
        except FileExistsError as error:
            raise OutputError(f"{str(to)!r} exists already. Give another folder.") from error
        except OSError as error:
            raise OutputError(f"{str(to)!r} cannot be written: {error.strerror or error}.") from error
        return to


def _rows(run: TaskRun, layers: bool) -> Iterator[dict[str, Any]]:
    """The figures of a task, then those of each of its controls."""
    results, controls = run.results, run.results.get("controls") or {}
    intervals = {"": results.get("intervals") or {}, **(results.get("contrast_intervals") or {})}
    for control, content in {"": results, **controls}.items():
        own = {"model": results["model"]["name"], "task": run.task, "control": control}
        for figure in FIGURES:
            level = content.get(figure.measure.level) or {}
            if figure.key not in level:
                continue
            low, high = (intervals.get(control) or {}).get(figure.path) or (None, None)
            named = {**own, "measure": figure.measure.level, "figure": figure.key}
            yield {**named, "layer": None, "value": level[figure.key], "low": low, "high": high}
            for number, value in enumerate(level.get(figure.per_layer) or [] if layers else []):
                yield {**named, "layer": number, "value": value, "low": None, "high": None}
