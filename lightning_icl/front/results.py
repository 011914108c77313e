"""What the calls return: tables, tidy frames, pages and files of a run, for programs and notebooks."""

import json
import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.dualform.tables import dual_grids, read_dual_forms
from lightning_icl.errors import OutputError, UserError
from lightning_icl.front import _frames
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.grid import Grid
from lightning_icl.report.ladder import ladder_grids, read_ladders
from lightning_icl.report.page.html import ladder_page, run_page, sweep_page, tables_html, write_page
from lightning_icl.report.paired import paired_grid
from lightning_icl.report.sweep import Row, read_sweep, settings_of, summarise
from lightning_icl.report.sweep import summary_grid as sweep_grid
from lightning_icl.report.tables import model_name, summary_grid
from lightning_icl.report.terminal import print_grid
from lightning_icl.results import PREDICTIONS, TaskRun, read_run
from lightning_icl.saving.paths import output_path

if TYPE_CHECKING:
    import pandas as pd


class SavedRun(ABC):
    """The files of a run.

    Args:
        folder: of a run, as the command line leaves it.
        temporary: a temporary folder that goes when this object does.
    """

    def __init__(self, folder: str | Path, temporary: Path | None = None) -> None:
        self.folder = Path(folder)
        if temporary is not None:
            # A finaliser and not `__del__`, which does not run at interpreter exit.
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)

    @abstractmethod
    def _grids(self) -> Sequence[Grid]:
        """Its tables."""

    def table(self, *, width: int = 100) -> str:
        """The tables as text, as the command line prints them.

        Args:
            width: columns that they may take.
        """
        return _text(self._grids(), width)

    def _repr_html_(self) -> str:
        """The tables as a notebook shows them."""
        return tables_html(self._grids())

    def save(self, folder: str | Path) -> Path:
        """Keep the run's files, for `lightning-icl report` and to be read again.

        Args:
            folder: a new one.

        Raises:
            OutputError: it exists, or cannot be written.
        """
        to = output_path(str(folder), "folder")
        try:
            # Copied and not moved: these results still read the folder.
            shutil.copytree(self.folder, to)
        except FileExistsError as error:
            raise OutputError(f"{str(to)!r} exists already. Give another folder.") from error
        except OSError as error:
            raise OutputError(f"{str(to)!r} cannot be written: {error.strerror or error}.") from error
        return to


class _WithPage(SavedRun):
    """The files of a run that has a page."""

    @abstractmethod
    def _page(self) -> str:
        """The page, self-contained."""

    def report(self, path: str | Path) -> Path:
        """Write the page that `lightning-icl report --html` makes.

        Args:
            path: the HTML file.

        Raises:
            OutputError: the file is there and is no report, or cannot be written.
        """
        to = output_path(str(path), "path")
        write_page(to, self._page())
        return to


class Results(_WithPage):
    """What a comparison found.

    Args:
        folder: of a run, as `compare` and the command line leave it.
        temporary: a temporary folder that goes when these results do.

    Raises:
        OutputError: the folder holds no finished run.
    """

    def __init__(self, folder: str | Path, temporary: Path | None = None) -> None:
        super().__init__(folder, temporary)
        self._runs: list[TaskRun] = read_run(self.folder)

    @property
    def tasks(self) -> dict[str, Mapping[str, Any]]:
        """By task the content of its `results.json`, shares between 0 and 1; what is undefined is None."""
        return {run.task: run.results for run in self._runs}

    def __getitem__(self, task: str) -> Mapping[str, Any]:
        return _of_task(self.tasks, task)

    def __repr__(self) -> str:
        return f"Results({model_name(self._runs)!r}, tasks: {', '.join(self.tasks)})"

    def table(self, *, intervals: bool = False, width: int = 100) -> str:
        """The summary as text, and where there are controls their table, as `lightning-icl compare` prints them.

        Args:
            intervals: whether every figure has its 95% interval.
            width: columns that it may take.
        """
        return _text(self._grids(intervals=intervals), width)

    def _grids(self, *, intervals: bool = False) -> Sequence[Grid]:
        grids = (summary_grid(self._runs, intervals=intervals), controls_grid(self._runs), paired_grid(self._runs))
        return list(filter(None, grids))

    def to_frame(self, *, layers: bool = False) -> "pd.DataFrame":
        """One row a figure: model, task, control (empty for the comparison itself), measure, figure, value, interval.

        Args:
            layers: whether each layer's value has a row too, numbered from 0.

        Raises:
            UserError: pandas is not installed.
        """
        return _frame(_frames.COMPARISON, (row for run in self._runs for row in _frames.comparison(run, layers)))

    def predictions(self, task: str) -> list[dict[str, Any]]:
        """Every query of a task: its row number, prompt, right answer, and scores of each answer by condition.

        Raises:
            UserError: there is no such task.
        """
        folder = _of_task({run.task: run.folder for run in self._runs}, task)
        return [json.loads(line) for line in (folder / PREDICTIONS).read_text(encoding="utf-8").splitlines()]

    def _page(self) -> str:
        return run_page(self._runs)


class SweepResults(_WithPage):
    """What a sweep found.

    Args:
        folder: of a sweep, as `sweep` and the command line leave it.
        temporary: a temporary folder that goes when these results do.

    Raises:
        OutputError: the folder holds no finished run of a sweep.
    """

    def __init__(self, folder: str | Path, temporary: Path | None = None) -> None:
        super().__init__(folder, temporary)
        self.rows: list[Row] = read_sweep(self.folder)
        """One mapping a run: its setting, its figures as saved, and whether it is the chosen one."""

    def __repr__(self) -> str:
        return f"SweepResults({len(self.rows)} runs: {'; '.join(settings_of(self.rows))})"

    @property
    def chosen(self) -> list[Row]:
        """The run chosen for each model, task and number of shots."""
        return [row for row in self.rows if row["selected"]]

    def _grids(self) -> Sequence[Grid]:
        return [sweep_grid(self.rows, summarise(self.rows))]

    def to_frame(self) -> "pd.DataFrame":
        """One row a figure of a run: model, task, shots, seed, lr, whether it is chosen, measure, figure, value.

        Raises:
            UserError: pandas is not installed.
        """
        return _frame(_frames.SWEEP, _frames.sweep(self.rows))

    def _page(self) -> str:
        return sweep_page(self.rows)


class _CloserLook(SavedRun):
    """What was found about the heads of a model on some tasks."""

    _contents: Sequence[Mapping[str, Any]]

    @property
    def tasks(self) -> dict[str, Mapping[str, Any]]:
        """By task everything that was found, as it is saved."""
        return {content["task"]["name"]: content for content in self._contents}

    def __getitem__(self, task: str) -> Mapping[str, Any]:
        return _of_task(self.tasks, task)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._contents[0]['model']['name']!r}, tasks: {', '.join(self.tasks)})"


class DualFormResults(_CloserLook):
    """Demonstrations and fine-tuning as updates of the same matrices, head by head.

    Args:
        folder: of a run, as `dual_form` and the command line leave it.
        temporary: a temporary folder that goes when these results do.

    Raises:
        OutputError: the folder holds no finished run of `dual-form`.
    """

    def __init__(self, folder: str | Path, temporary: Path | None = None) -> None:
        super().__init__(folder, temporary)
        self._contents = _some(read_dual_forms(self.folder), self.folder, "dual-form")

    def _grids(self) -> Sequence[Grid]:
        return [grid for content in self._contents for grid in dual_grids(content)]

    def to_frame(self) -> "pd.DataFrame":
        """One row a figure: model, task, figure, layer, head (none for one of a whole layer), value.

        Raises:
            UserError: pandas is not installed.
        """
        return _frame(_frames.DUAL_FORM, (row for content in self._contents for row in _frames.dual_form(content)))


class WeightUpdateResults(_CloserLook, _WithPage):
    """Demonstrations replaced by updates of each head, rung by rung.

    Args:
        folder: of a run, as `weight_update` and the command line leave it.
        temporary: a temporary folder that goes when these results do.

    Raises:
        OutputError: the folder holds no finished run of `weight-update`.
    """

    def __init__(self, folder: str | Path, temporary: Path | None = None) -> None:
        super().__init__(folder, temporary)
        self._contents = _some(read_ladders(self.folder), self.folder, "weight-update")

    def table(self, *, intervals: bool = False, width: int = 100) -> str:
        """The tables of every task as text.

        Args:
            intervals: whether every figure has its 95% interval.
            width: columns that they may take.
        """
        return _text(self._grids(intervals=intervals), width)

    def _grids(self, *, intervals: bool = False) -> Sequence[Grid]:
        return [grid for content in self._contents for grid in ladder_grids(content, intervals=intervals)]

    def to_frame(self, *, layers: bool = False) -> "pd.DataFrame":
        """One row a figure: model, task, scope, condition, figure, value, interval.

        Args:
            layers: whether each layer's value has a row too, numbered from 0.

        Raises:
            UserError: pandas is not installed.
        """
        rows = (row for content in self._contents for row in _frames.weight_update(content, layers))
        return _frame(_frames.WEIGHT_UPDATE, rows)

    def _page(self) -> str:
        return ladder_page(self._contents)


def _of_task(tasks: Mapping[str, Any], name: str) -> Any:
    if name not in tasks:
        raise UserError(f"These results have no task {name!r}. Theirs: {', '.join(tasks)}.")
    return tasks[name]


def _some(contents: Sequence[Mapping[str, Any]], folder: Path, command: str) -> Sequence[Mapping[str, Any]]:
    if not contents:
        raise OutputError(f"{str(folder)!r} holds no finished run of {command}.")
    return contents


def _text(grids: Iterable[Grid], width: int) -> str:
    from rich.console import Console

    # Without colours: the text may go into a file or a cell.
    console = Console(width=width, color_system=None, force_terminal=False, force_jupyter=False)
    with console.capture() as printed:
        for grid in grids:
            print_grid(grid, console)
    return printed.get()


def _frame(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    """A frame with columns of these types."""
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise UserError("A frame needs pandas. Install it: pip install pandas") from error
    # Typed even when empty, so that frames can be put together.
    return pd.DataFrame(list(rows), columns=list(columns)).astype(dict(columns))
