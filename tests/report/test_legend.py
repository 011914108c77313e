"""The legend of a level names what its charts draw, no more and no less, in the colours they draw it in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_runs import LAYERS, repetition, save

from lightning_icl.measures import measures
from lightning_icl.report._curves import draw_curves
from lightning_icl.report.page.html import run_page
from lightning_icl.report.seeds import Run
from lightning_icl.results import read_run

FLAT, NOTHING = [0.3] * LAYERS, [None] * LAYERS


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two tasks: the first lacks two controls that the second has; one control has no attention to measure."""

    def controls(*names: str) -> dict[str, Any]:
        shuffled = {"sim_aou": {"per_layer": FLAT}, "sim_am": {"per_layer": NOTHING}, "kendall": None}
        alike = {level: {"per_layer": FLAT} for level in ("sim_aou", "sim_am", "kendall")}
        return {name: shuffled if name == "shuffled-query" else alike for name in names}

    save(tmp_path, repetition("sst2") | {"task_number": 0, "controls": controls("order", "shuffled-query")})
    second = controls("labels-random", "labels-abstract", "order", "shuffled-query", "untrained")
    save(tmp_path, repetition("cb") | {"task_number": 1, "controls": second})
    return read_run(tmp_path)


def charts(page: str, level: str) -> tuple[dict[str, str], list[set[str]]]:
    """Of one level of the page: the class of each name in the legend, and the classes drawn in each chart."""
    layers = page.split('<section id="layers">')[1].split("</section>")[0]
    section = next(part for part in layers.split("<h3>")[1:] if part.startswith(level))
    legend, *figures = section.split("<figure>")
    key = r'<g class="(?:curve|band) ([^"]+)">.*?</svg>([^<]+)</button></li>'
    named = {label: name for name, label in re.findall(key, legend)}
    return named, [set(re.findall(r'<g class="(?:curve|band) ([^"]+)" ', figure)) for figure in figures]


@pytest.mark.parametrize("level", ["SimAOU", "SimAM", "Kendall"])
def test_the_page_names_what_is_drawn_and_nothing_else(run: Run, level: str) -> None:
    named, drawn = charts(run_page(run), level)
    assert set(named.values()) == set.union(*drawn)
    assert len(set(named.values())) == len(named)
    assert ("shuffled-query" in named) == (level == "SimAOU")
    assert {"labels-random", "labels-abstract", "order", "untrained"} <= named.keys()


def test_a_control_has_one_colour_in_all_charts_of_all_levels(run: Run) -> None:
    page = run_page(run)
    by_level = [charts(page, level)[0] for level in ("SimAOU", "SimAM", "Kendall")]
    first, second = charts(page, "SimAOU")[1]
    assert len({named["order"] for named in by_level}) == 1
    assert by_level[0]["order"] in first & second
    assert by_level[0]["labels-abstract"] not in first


@pytest.mark.parametrize("level", ["sim_aou", "sim_am", "kendall"])
def test_pictures_name_what_is_drawn_in_its_colour(run: Run, level: str) -> None:
    figure = draw_curves([[task] for task in run], next(m for m in measures() if m.level == level))
    (legend,) = figure.legends
    named = {text.get_text(): line for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)}
    drawn: dict[str, set[Any]] = {}
    for axis in figure.axes:
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True):
            drawn.setdefault(label, set()).add(look(line))
    assert drawn == {label: {look(line)} for label, line in named.items()}
    assert len({look(line) for line in named.values()}) == len(named)


def look(line: Any) -> tuple[Any, Any]:
    return line.get_color(), line.get_linestyle()


def test_a_band_and_the_line_of_one_control_share_its_colour(tmp_path: Path) -> None:
    """Two orders are a band in one task, one order is a line in the other."""
    orders: Mapping[str, Any] = {name: {"sim_aou": {"per_layer": FLAT}} for name in ("order-1", "order-2")}
    save(tmp_path, repetition("sst2") | {"task_number": 0, "controls": orders})
    save(tmp_path, repetition("cb") | {"task_number": 1, "controls": {"untrained": {}, "order-1": orders["order-1"]}})
    named, _ = charts(run_page(read_run(tmp_path)), "SimAOU")
    assert named["order (2 runs)"] == named["order"]
