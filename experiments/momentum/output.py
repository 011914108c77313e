"""What comes out: tables and words on the terminal and as Markdown, all numbers as JSON, curves as PNG."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from experiments.momentum.curves import draw_curves
from experiments.momentum.difference_sentences import difference_sentences
from experiments.momentum.differences import difference_table, differences
from experiments.momentum.search import Found, search_table
from experiments.momentum.settings import ExperimentSettings
from experiments.momentum.summary import Measured, accuracies, comparison, markdown, of_seeds, perplexities, sweep
from experiments.momentum.task_tables import accuracy_tables
from lightning_icl.published import momentum_tables
from lightning_icl.results import to_json
from lightning_icl.saving.workspace import write_text


def show(
    settings: ExperimentSettings, found: Mapping[str, Found], measured: Measured, out: Path, console: Console
) -> None:
    """Print and keep everything.

    Args:
        settings: of the experiment.
        found: by the search.
        measured: by kind of attention and seed.
        out: the experiment's folder.
        console: to print on.
    """
    momentum, rows = f"eta-{settings.eta:g}", accuracies(measured)
    same = set(rows) - {"mean"} == set(momentum_tables()["icl_tasks"])
    spread = ": mean ± standard error, difference paired by seed" if len(settings.seeds) > 1 else ""
    titles = (
        f"Perplexity ({of_seeds(settings.seeds)}{spread})",
        f"In-context accuracy (%), at most {settings.shots} demonstrations",
    )
    gaps = differences(settings, measured)
    tables = [
        comparison(titles[0], perplexities(settings), measured, momentum, paper=True),
        comparison(titles[1], rows, measured, momentum, paper=same),
        sweep(settings, measured),
        *accuracy_tables(measured),
        difference_table(gaps),
        *([search_table(settings, found)] if found else []),
    ]
    texts = []
    for table, (header, *lines) in tables:
        console.print(table)
        texts.append(markdown(str(table.title), header, lines))
    for sentence in (words := difference_sentences(gaps)):
        console.print(sentence, highlight=False)
    write_text(out / "tables.md", "\n".join([*texts, "\n".join(words), ""]))
    write_text(out / "results.json", to_json(measured))
    write_text(out / "differences.json", to_json({"differences": [gap._asdict() for gap in gaps]}))
    for picture in draw_curves(settings, measured, out):
        console.print(f"drawn: {picture}", highlight=False)
    console.print(f"Tables and numbers: {out / 'tables.md'}, {out / 'results.json'}", highlight=False)
