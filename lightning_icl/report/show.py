"""Show a saved run: tables in the terminal, and exported files."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from lightning_icl.report.controls import control_notes, controls_table
from lightning_icl.report.render import to_csv, to_markdown, to_rich
from lightning_icl.report.tables import summarise
from lightning_icl.results import TaskRun, read_run, write_text

# Columns of a table that is written to a file or pipe, where nothing says how wide it may be.
_WIDE = 132


def show_report(folders: Sequence[Path], tables: Sequence[str] | None = None, export: bool = False) -> None:
    """Print the tables of saved runs, and write them with the curves beside the runs if asked.

    Args:
        folders: run folders, or folders of single tasks.
        tables: which tables; None for all.
        export: also write `summary.md`, `summary.csv` and one PNG for each measure into each folder.

    Raises:
        OutputError: no run is there, an unknown table, or files cannot be written.
    """
    for folder in folders:
        print_summary(folder, tables)
        if export:
            for path in export_files(folder, read_run(folder), tables):
                Console().print(f"wrote {path}", highlight=False, soft_wrap=True)


def print_summary(folder: Path, tables: Sequence[str] | None = None, tasks: Sequence[str] | None = None) -> None:
    """Print one run's tables, and why what is missing is missing.

    Args:
        folder: the run.
        tables: which tables; None for all.
        tasks: which tasks; None for all that the folder holds.
    """
    runs = [run for run in read_run(folder) if tasks is None or run.task in tasks]
    summary = summarise(runs, tables)
    console = Console()
    if not console.is_terminal and console.width < _WIDE:
        console = Console(width=_WIDE)
    heading = f"[bold]{escape(summary.model)}[/]: zero-shot (ZSL), fine-tuned (FT) and in-context (ICL)"
    console.print(heading, highlight=False, soft_wrap=True)
    console.print(to_rich(summary))
    for note in summary.notes:
        console.print(f"– {note}", style="dim", highlight=False)
    for run in runs:
        if (table := controls_table(run)) is not None:
            console.print(table)
        for note in control_notes(run):
            console.print(f"– {note}", style="dim", highlight=False, markup=False)


def export_files(folder: Path, runs: Sequence[TaskRun], tables: Sequence[str] | None = None) -> list[Path]:
    """Write the tables as Markdown and CSV, and the curves as PNG, into the run's folder."""
    from lightning_icl.report.curves import save_curves

    summary = summarise(runs, tables)
    write_text(folder / "summary.md", to_markdown(summary))
    write_text(folder / "summary.csv", to_csv(summary))
    return [folder / "summary.md", folder / "summary.csv", *save_curves(runs, folder)]
