"""The report as one page: no network, light and dark, made of saved results alone.

Every text that comes from data is escaped; the page's security policy runs the one script whose hash it names, and
loads nothing.
"""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

from lightning_icl._version import __version__
from lightning_icl.errors import OutputError
from lightning_icl.report.check import TOLERANCE, check_grid, not_repeated
from lightning_icl.report.controls import controls_grid
from lightning_icl.report.grid import grid_to_html
from lightning_icl.report.page.queries import json_block, query_data
from lightning_icl.report.page.sections import curves_section, run_section, summary_table, task_section
from lightning_icl.report.paired import paired_grid
from lightning_icl.report.seeds import Run, seed_groups, seeds_grid, seeds_of
from lightning_icl.report.side_by_side import by_size, run_name, side_grid, size_charts
from lightning_icl.report.strokes import style_rules
from lightning_icl.report.tables import summarise
from lightning_icl.results import TaskRun
from lightning_icl.saving.workspace import write_text

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; img-src data:"
_MARK = '<meta name="generator" content="lightning-icl'


def write_page(path: Path, runs: Sequence[Sequence[TaskRun]]) -> None:
    """Write the page of one run, or of several side by side.

    Args:
        path: the file.
        runs: the tasks of each run.

    Raises:
        OutputError: the file is there and is no report, or cannot be written.
    """
    try:
        if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
            raise OutputError(f"{str(path)!r} exists and is no report, so it is left alone. Give another --html.")
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    write_text(path, run_page(runs[0]) if len(runs) == 1 else side_page(runs))


def run_page(runs: Sequence[TaskRun]) -> str:
    """The page of one run.

    Args:
        runs: its tasks.
    """
    model = runs[0].results["model"]
    size = f"{model['parameters']:,} parameters, " if model.get("parameters") else ""
    layers = f"{model['layers']} layers, {model.get('heads')} heads, " if model.get("layers") else ""
    queries = sum((run.results.get("queries") or {}).get("count") or 0 for run in runs)
    facts = f"{size}{layers}{len(runs)} {'task' if len(runs) == 1 else 'tasks'}, {queries:,} queries"
    controls = [grid_to_html(grid) for grid in (controls_grid(runs), paired_grid(runs)) if grid]
    sections = [
        ("figures", "Figures", summary_table(summarise(runs), runs) + _check(runs)),
        ("controls", "Controls", "".join(controls)),
        ("layers", "Layer by layer", curves_section([runs])),
        ("tasks", "Task by task", "".join(task_section(run, number == 0) for number, run in enumerate(runs))),
        ("queries", "Queries", _QUERIES),
        ("again", "Run it again", run_section(runs)),
    ]
    return _page(str(model["name"]), facts, sections, json_block("query-data", query_data(runs)))


def side_page(runs: Sequence[Run]) -> str:
    """The page of several runs: over seeds where they differ in nothing else, models side by side, smallest first.

    Args:
        runs: the tasks of each run.
    """
    groups = by_size(seed_groups(runs))
    if len(groups) == 1:
        model = str(groups[0][0][0].results["model"]["name"])
        sections = [
            ("figures", "Figures", grid_to_html(seeds_grid(groups[0]))),
            ("layers", "Layer by layer", curves_section(groups[0])),
            ("runs", "Each seed", "".join(_details(run_name(run), _one_run(run)) for run in groups[0])),
        ]
        return _page(model, f"mean over {seeds_of(groups[0])}", sections, "")
    tables = "".join(
        _details(
            f"{group[0][0].results['model']['name']}, {run_name(group[0]) if len(group) == 1 else seeds_of(group)}",
            (_one_run(group[0]) if len(group) == 1 else grid_to_html(seeds_grid(group))) + curves_section(group),
        )
        for group in groups
    )
    sections = [
        ("figures", "Side by side", grid_to_html(side_grid(groups))),
        ("size", "Size against similarity", size_charts(groups)),
        ("runs", "Each model", tables),
    ]
    return _page(f"{len(runs)} runs", "models side by side", sections, "")


def _one_run(run: Run) -> str:
    return summary_table(summarise(run), run)


def _details(name: str, content: str) -> str:
    return f"<details><summary>{escape(name)}</summary>{content}</details>"


def _check(runs: Sequence[TaskRun]) -> str:
    if all(not_repeated(run) for run in runs):
        return ""
    grid = check_grid(runs)
    return f"<details><summary>{escape(grid.title)}</summary>{grid_to_html(grid)}</details>" + (
        f'<p class="hint">{escape(TOLERANCE)}.</p>'
    )


def _page(title: str, facts: str, sections: Sequence[tuple[str, str, str]], data: str) -> str:
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    style += style_rules()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    there = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{name}">{escape(heading)}</a>' for name, heading, _ in there)
    body = "".join(
        f'<section id="{name}"><h2>{escape(heading)}</h2>{content}</section>' for name, heading, content in there
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{_MARK} {__version__}">
<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(digest)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)} – lightning-icl</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="eyebrow">How a language model learns from the examples in its prompt</p>
<h1>{escape(title)}</h1>
<p class="facts">{escape(facts)}</p>
<button id="theme" type="button" hidden>Dark or light</button>
</header>
<nav aria-label="Sections">{links}</nav>
<main>
{body}
</main>
<footer>Made by lightning-icl {__version__} from saved results. Measures after
<a href="https://arxiv.org/abs/2212.10559">Dai et al. (2023)</a> and
<a href="https://arxiv.org/abs/2311.07772">Deutch et al. (2024)</a>.</footer>
{data}
<script>{script}</script>
</body>
</html>
"""


_QUERIES = """
<p class="hint">Each query with what was right, and what the three views answered: zero-shot (ZSL), with demonstrations
in the prompt (ICL), and fine-tuned on them (FT).</p>
<noscript><p>The list of queries needs JavaScript.</p></noscript>
<form id="query-form" hidden>
<label>Task <select id="query-task"></select></label>
<label>Kind <select id="query-kind"></select></label>
<label class="wide">Search
<input id="query-text" type="search" placeholder="prompt, answer or number" autocomplete="off"></label>
</form>
<p id="query-count" class="hint" aria-live="polite"></p>
<ol id="query-list"></ol>
<p id="query-pages" hidden><button type="button" id="query-previous">Previous</button>
<span id="query-page"></span>
<button type="button" id="query-next">Next</button></p>
"""
