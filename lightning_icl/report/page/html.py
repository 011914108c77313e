"""The report as one page: no network, light and dark, made of saved results alone.

Every text that comes from data is escaped; the page's security policy runs the one script whose hash it names, and
loads nothing.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lightning_icl._version import __version__
from lightning_icl.errors import OutputError
from lightning_icl.report.check import check_grid, not_repeated
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.grid import Grid
from lightning_icl.report.ladder import Ladder, ladder_grids
from lightning_icl.report.page._charts import size_chart
from lightning_icl.report.page._queries import json_data, query_data
from lightning_icl.report.page._sections import Part, again_part, forest_parts, level_parts, rate_part, task_part
from lightning_icl.report.paired import paired_grid
from lightning_icl.report.seeds import Run, seed_groups, seeds_grid, seeds_of
from lightning_icl.report.side_by_side import by_size, run_name, side_grid, size_points
from lightning_icl.report.strokes import style_rules
from lightning_icl.report.sweep import Row, settings_of, summarise
from lightning_icl.report.sweep import summary_grid as sweep_grid
from lightning_icl.report.tables import model_name, reader_notes, summary_grid
from lightning_icl.report.verdict import verdict
from lightning_icl.results import TaskRun
from lightning_icl.saving.workspace import write_text

_HERE = Path(__file__).parent
_MARK = '<meta name="generator" content="lightning-icl'


def page_of(runs: Sequence[Sequence[TaskRun]], ladders: Sequence[Ladder] = ()) -> str:
    """The page of one run, or of several side by side.

    Args:
        runs: the tasks of each run.
        ladders: tasks of runs of `weight-update`, which get a section, or the page where there is nothing else.
    """
    if not runs:
        return ladder_page(ladders)
    return run_page(runs[0], ladders) if len(runs) == 1 else side_page(runs, ladders)


def write_page(path: Path, page: str) -> None:
    """Write a page.

    Args:
        path: the file.
        page: its text.

    Raises:
        OutputError: the file is there and is no report, or cannot be written.
    """
    try:
        # Only a page of ours is replaced; the mark is in its first lines.
        if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
            raise OutputError(f"{str(path)!r} exists and is no report, so it is left alone. Give another --html.")
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    write_text(path, page)


def ladder_page(ladders: Sequence[Ladder]) -> str:
    """The page of demonstrations as weight updates alone."""
    names = dict.fromkeys(ladder["model"]["name"] for ladder in ladders)
    facts = f"{len(ladders)} {'task' if len(ladders) == 1 else 'tasks'}"
    return _page(title=", ".join(names), facts=facts, sections=[_ladder_section(ladders)])


def _ladder_section(ladders: Sequence[Ladder]) -> tuple[str, str, list[Grid]]:
    grids = [grid for ladder in ladders for grid in ladder_grids(ladder, intervals=True)]
    return "ladder", "Demonstrations as a weight update", grids


def run_page(runs: Sequence[TaskRun], ladders: Sequence[Ladder] = ()) -> str:
    """The page of one run.

    Args:
        runs: its tasks.
        ladders: tasks of runs of `weight-update`.
    """
    model = runs[0].results["model"]
    size = f"{model['parameters']:,} parameters, " if model.get("parameters") else ""
    layers = f"{model['layers']} layers, {model.get('heads')} heads, " if model.get("layers") else ""
    queries = sum((run.results.get("queries") or {}).get("count") or 0 for run in runs)
    sections = [
        ("verdict", "In short", {"sentences": verdict(runs), "notes": reader_notes(runs)}),
        ("forest", "Beside the controls", forest_parts(runs)),
        ("layers", "Layer by layer", level_parts([runs])),
        ("figures", "Figures", [summary_grid(runs, intervals=True), *_check(runs)]),
        ("controls", "Controls", [grid for grid in (controls_grid(runs), paired_grid(runs)) if grid]),
        _ladder_section(ladders),
        ("tasks", "Task by task", [task_part(run) for run in runs]),
        ("queries", "Queries", True),
        ("again", "Run it again", again_part(runs)),
    ]
    return _page(
        title=model_name(runs),
        facts=f"{size}{layers}{len(runs)} {'task' if len(runs) == 1 else 'tasks'}, {queries:,} queries",
        sections=sections,
        queries=json_data(query_data(runs)),
    )


def side_page(runs: Sequence[Run], ladders: Sequence[Ladder] = ()) -> str:
    """The page of several runs: over seeds where they differ in nothing else, models side by side, smallest first.

    Args:
        runs: the tasks of each run.
        ladders: tasks of runs of `weight-update`.
    """
    groups = by_size(seed_groups(runs))
    # One group: runs that differ in the seed alone, whose means are the point.
    if len(groups) == 1:
        sections = [
            ("figures", "Figures", [seeds_grid(groups[0])]),
            ("layers", "Layer by layer", level_parts(groups[0])),
            _ladder_section(ladders),
            ("runs", "Each seed", [_run_part(run_name(run), [run]) for run in groups[0]]),
        ]
        return _page(title=model_name(groups[0][0]), facts=f"mean over {seeds_of(groups[0])}", sections=sections)
    # A group of one run is named by its folder, since two may be of one model.
    names = [
        f"{model_name(group[0])}, {run_name(group[0]) if len(group) == 1 else seeds_of(group)}" for group in groups
    ]
    sections = [
        ("figures", "Side by side", [side_grid(groups)]),
        ("size", "Size against similarity", [size_chart(points, name) for name, points in size_points(groups).items()]),
        _ladder_section(ladders),
        (
            "runs",
            "Each model",
            [_run_part(name, group, curves=True) for name, group in zip(names, groups, strict=True)],
        ),
    ]
    return _page(title=f"{len(runs)} runs", facts="models side by side", sections=sections)


def sweep_page(rows: Sequence[Row]) -> str:
    """The page of a sweep: what was chosen, and every figure over the learning rates.

    Args:
        rows: its runs.
    """
    parts = [rate_part(name, own) for name, own in settings_of(rows).items()]
    sections = [
        ("figures", "At the chosen rates", [sweep_grid(rows, summarise(rows))]),
        ("layers", "Over learning rates", parts),
    ]
    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    return _page(title=f"Sweep of {', '.join(models)}", facts=f"{len(rows)} runs", sections=sections)


def _run_part(name: str, group: Sequence[Run], *, curves: bool = False) -> Part:
    grid = summary_grid(group[0], intervals=True) if len(group) == 1 else seeds_grid(group)
    return {"name": name, "grid": grid, "levels": level_parts(group) if curves else []}


def _check(runs: Sequence[TaskRun]) -> list[Any]:
    return [] if all(not_repeated(run) for run in runs) else [check_grid(runs)]


def tables_html(grids: Sequence[Grid]) -> str:
    """Tables as a notebook shows them, in the colours of the notebook.

    Args:
        grids: the tables.
    """
    return _templates().get_template("notebook.html").render(grids=grids)


def _templates() -> Environment:
    # Text from data is never markup, and a misspelt name in a template is an error.
    return Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )


def _page(*, title: str, facts: str, sections: Sequence[tuple[str, str, Any]], queries: str = "") -> str:
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        _templates()
        .get_template("page.html")
        .render(
            version=__version__,
            # The policy allows the one script with this hash and no other.
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            # Our own style sheet is markup; everything else on the page is text.
            style=Markup(style + style_rules()),
            script=Markup(script),
            title=title,
            facts=facts,
            sections=sections,
            # The query list is data for the script, escaped where it is made.
            queries=Markup(queries),
        )
    )
