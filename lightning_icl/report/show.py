"""Show a saved run: tables in the terminal, and exported files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lightning_icl.console import say
from lightning_icl.errors import OutputError
from lightning_icl.file_names import folder_name
from lightning_icl.report._latex import grid_to_latex
from lightning_icl.report.check import check as check_cells
from lightning_icl.report.check import check_grid, not_repeated
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.grid import Grid, grid_to_csv, grid_to_markdown
from lightning_icl.report.ladder import ladder_grids, read_ladders
from lightning_icl.report.outcomes import right_grid
from lightning_icl.report.page.html import page_of, sweep_page, write_page
from lightning_icl.report.paired import paired_grid
from lightning_icl.report.seeds import Run, seed_groups, seeds_grid
from lightning_icl.report.side_by_side import side_grid
from lightning_icl.report.sweep import is_sweep, read_sweep, summarise
from lightning_icl.report.sweep import summary_grid as sweep_grid
from lightning_icl.report.tables import chosen_figures, summary_grid
from lightning_icl.report.terminal import print_grid
from lightning_icl.results import TaskRun, read_run
from lightning_icl.saving.workspace import held


def show_report(
    folders: Sequence[Path],
    tables: Sequence[str] | None = None,
    *,
    intervals: bool = False,
    export: bool = False,
    html: Path | None = None,
    check: bool = False,
) -> bool:
    """Print the tables of saved runs, side by side where there are several, and write files if asked.

    Args:
        folders: run folders, or folders of single tasks; those of `weight-update` have tables of their own.
        tables: which tables; None for all.
        intervals: show the interval of every figure, not of Rec2FTP alone.
        export: also write tables and pictures into each folder; what is made of several runs goes into the first.
        html: also write one page here.
        check: also compare each figure with the published run that is repeated.

    Returns:
        False where a figure checked is not within tolerance.

    Raises:
        OutputError: no run is there, an unknown table, nothing to check, or files cannot be written.
    """
    # A sweep has tables of its own, and nothing else beside it.
    if any(is_sweep(folder) for folder in folders):
        flags = {"--check": check, "--tables": tables is not None, "--intervals": intervals}
        if unused := [flag for flag, is_set in flags.items() if is_set]:
            raise OutputError(f"A sweep has one table of its own. Leave {', '.join(unused)} out.")
        _show_sweep(folders, export=export, html=html)
        return True
    chosen_figures(tables)  # an unknown table is refused whatever the folders hold
    ladders = {folder: found for folder in folders if (found := read_ladders(folder))}
    # Folders of ladders hold no `results.json`, so they are no runs.
    folders = [folder for folder in folders if folder not in ladders]
    runs = [read_run(folder) for folder in folders]
    groups = seed_groups(runs)
    for group in groups:
        if len(group) == 1:
            _print_run(group[0], tables, intervals)
        else:
            print_grid(seeds_grid(group, tables))
    grids = [side_grid(groups)] if len(groups) > 1 else []
    written: list[Path] = []
    for folder, own_ladders in ladders.items():
        grids += (own := [grid for ladder in own_ladders for grid in ladder_grids(ladder, intervals=intervals)])
        if export:
            # The folder is held: an export must not meet a run that is writing.
            with held(folder) as space, space.adding() as part:
                written += [folder / path.name for grid in own for path in write_grid(grid, part)]
    if export:
        for folder, tasks in zip(folders, runs, strict=True):
            with held(folder) as space, space.adding() as part:
                made = export_files(part, tasks, tables, intervals)
                if folder == folders[0]:
                    # What is made of several runs goes into the first folder; it belongs to none.
                    made += export_together(part, groups, tables)
            written += [folder / path.name for path in made]
    if html is not None:
        write_page(html, page_of(runs, [ladder for own in ladders.values() for ladder in own]))
    if check:
        grids.append(check_grid([run for tasks in runs for run in tasks]))
    for grid in grids:
        print_grid(grid)
    _print_written(written, each=len(runs) == 1)
    _print_written([html] if html else [], each=True)
    # Exit status 1 where a figure is off: the command can stand in a script.
    return not check or all(cell.within for tasks in runs for cell in check_cells(tasks))


def _show_sweep(folders: Sequence[Path], *, export: bool, html: Path | None) -> None:
    """Print the table of a sweep, and write its page and pictures if asked."""
    if len(folders) > 1:
        raise OutputError("A sweep is reported alone: give one folder.")
    rows = read_sweep(folders[0])
    print_grid(sweep_grid(rows, summarise(rows)))
    written = []
    if export:
        # Imported here: pictures need matplotlib, which a table does not.
        from lightning_icl.report._curves import save_rate_pictures

        with held(folders[0]) as space, space.adding() as part:
            written = [folders[0] / path.name for path in save_rate_pictures(rows, part)]
    if html is not None:
        write_page(html, sweep_page(rows))
        written.append(html)
    _print_written(written, each=True)


def _print_written(paths: Sequence[Path], each: bool) -> None:
    """Every file, or of many runs the number in each folder."""
    # Many runs make many files; one line for each folder is enough.
    counts = Counter(path.parent for path in paths)
    lines = map(str, paths) if each else (f"{count} files into {folder}" for folder, count in counts.items())
    for line in lines:
        say(f"wrote {line}")


def print_summary(
    folder: Path,
    tables: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    *,
    intervals: bool = False,
) -> None:
    """Print one run's tables, and why what is missing is missing.

    Args:
        folder: the run.
        tables: which tables; None for all.
        tasks: which tasks; None for all that the folder holds.
        intervals: show the interval of every figure, not of Rec2FTP alone.
    """
    _print_run([run for run in read_run(folder) if tasks is None or run.task in tasks], tables, intervals)


def _print_run(runs: Run, tables: Sequence[str] | None, intervals: bool) -> None:
    for grid in (summary_grid(runs, tables, intervals=intervals), controls_grid(runs), paired_grid(runs)):
        if grid is not None:
            print_grid(grid)


def export_files(
    folder: Path, runs: Sequence[TaskRun], tables: Sequence[str] | None = None, intervals: bool = False
) -> list[Path]:
    """Write every table as Markdown, CSV and LaTeX, and every picture as PNG and SVG, into a folder."""
    from lightning_icl.report._curves import save_pictures

    grids = [summary_grid(runs, tables, intervals=intervals), controls_grid(runs), paired_grid(runs)]
    grids += [right_grid(run.results) for run in runs]
    # A run that repeats nothing published has no check to write.
    if any(not not_repeated(run) for run in runs):
        grids.append(check_grid(runs))
    paths: list[Path] = []
    for grid in grids:
        if grid is not None:
            paths += write_grid(grid, folder)
    return [*paths, *save_pictures(runs, folder)]


def export_together(folder: Path, groups: Sequence[Sequence[Run]], tables: Sequence[str] | None = None) -> list[Path]:
    """Write what is made of several runs: figures and curves over seeds, and models side by side.

    Args:
        folder: where to; of several groups, those with seeds are numbered.
        groups: runs that differ in the seed alone.
        tables: which tables; None for all.
    """
    from lightning_icl.report._curves import save_seed_pictures, save_size_picture

    paths = []
    for number, group in enumerate(groups, 1):
        if len(group) > 1:
            prefix = "seeds" if len(groups) == 1 else f"seeds_{number}"
            paths += write_grid(seeds_grid(group, tables, name=prefix), folder)
            paths += save_seed_pictures(group, folder, prefix)
    if len(groups) > 1:
        paths += [*write_grid(side_grid(groups), folder), *save_size_picture(groups, folder)]
    return paths


def write_grid(grid: Grid, folder: Path) -> list[Path]:
    """Write a table as Markdown, CSV and LaTeX."""
    name = folder_name(grid.name)  # a task's name from results.json may hold anything
    made = {"md": grid_to_markdown(grid), "csv": grid_to_csv(grid), "tex": grid_to_latex(grid)}
    for kind, text in made.items():
        (folder / f"{name}.{kind}").write_text(text, encoding="utf-8")
    return [folder / f"{name}.{kind}" for kind in made]
