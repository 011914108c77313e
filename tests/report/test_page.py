"""The page: nothing of a data row becomes markup, nothing is loaded, and in a browser its list of queries works."""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import HOSTILE, repetition, save

from lightning_icl.cli import main
from lightning_icl.errors import OutputError
from lightning_icl.report.outcomes import outcome
from lightning_icl.report.page._queries import read_predictions
from lightning_icl.report.page.html import page_of, run_page, write_page
from lightning_icl.results import read_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Elements(HTMLParser):
    """Tags, and attributes that load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has the handler {name}"
            if name in ("src", "srcset", "data", "action", "poster") or (name == "href" and tag != "a"):
                self.loads.append(value or "")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save(tmp_path / "run", repetition(), queries=60)


def test_markup_in_data_stays_text_and_nothing_is_loaded(run: Path) -> None:
    page = run_page(read_run(run))
    elements = Elements(page)
    assert elements.tags["script"] == 2  # the data block and the page's own
    assert elements.tags["img"] == 0
    assert elements.loads == ["data:,"]
    assert "<script>document" not in page
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "@import" not in page


def test_the_rates_that_were_tried_stand_beside_the_fine_tuning(tmp_path: Path) -> None:
    trials = [
        {"rate": 0.001, "accuracy": 0.5, "loss": 0.7},
        {"rate": 0.01, "accuracy": 0.75, "loss": 0.5, "demonstrations": 1.25},
        {"rate": 0.1, "accuracy": 0.875, "loss": 0.4, "demonstrations": 3.5, "out": "It takes the loss from 2 to 3."},
        {"rate": 1.0, "out": "The loss became nan."},
    ]
    task = repetition()
    task["finetune"]["choice"] = {"rate": 0.01, "held_out": 16, "before": 2.0, "trials": trials}
    page = run_page(read_run(save(tmp_path / "run", task, queries=60)))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "Learning rates tried, sst2. rate held-out accuracy held-out loss loss of the demonstrations" in text
    assert "0.001 50.0 0.700 – 0.01 75.0 0.500 1.250 chosen 0.1 87.5 0.400 3.500 It takes the loss from 2 to 3" in text
    assert "1 – – – The loss became nan" in text
    assert "(2.000 before fine-tuning)" in text


def test_an_old_run_without_the_optional_parts_still_has_a_page(tmp_path: Path) -> None:
    results = repetition()
    for key in ("intervals", "controls", "finetune", "versions"):
        del results[key]
    results |= {"rec2ftp": None, "sim_aou": None, "sim_am": None, "kendall": None}
    del results["demonstrations"]["texts"]
    page = run_page(read_run(save(tmp_path / "old", results)))
    assert "Controls" not in page
    assert "Demonstrations" not in page
    assert "Layer by layer" not in page


def test_a_file_that_is_no_report_is_left_alone(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "thesis.html"
    path.write_text("years of work")
    with pytest.raises(OutputError, match="left alone"):
        write_page(path, page_of([read_run(run)]))
    assert path.read_text() == "years of work"
    path.unlink()
    write_page(path, page_of([read_run(run)]))
    write_page(path, page_of([read_run(run)]))


def test_a_broken_line_of_predictions_is_named(run: Path) -> None:
    path = run / "sst2" / "predictions.jsonl"
    path.write_text('{"index": 1, "gold": 0, "zsl": 0, "icl": 0}\n{"index": 2}\n')
    with pytest.raises(OutputError, match="line 2: 'gold' is missing"):
        read_predictions(read_run(run)[0])


def test_a_page_needs_no_matplotlib(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # importing it is an ImportError
    main(["report", str(run), "--html", str(tmp_path / "report.html")])
    assert (tmp_path / "report.html").is_file()


def in_browser(page: Path, fragment: str, profile: Path) -> str:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: no chromium, chromium-browser or google-chrome on the path")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=5000 --dump-dom"
    ).split()
    run = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={profile}", f"{page.as_uri()}{fragment}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return run.stdout


def test_in_a_browser_filter_and_search_find_what_a_loop_finds(run: Path, tmp_path: Path) -> None:
    page, tasks = tmp_path / "report.html", read_run(run)
    write_page(page, page_of([tasks]))
    rows = read_predictions(tasks[0])
    wanted = [row["index"] for row in rows if outcome(row) == "corrected-icl" and "number 1" in row["prompt"]]
    assert 0 < len(wanted) < 25
    document = in_browser(page, "#queries?task=sst2&kind=corrected-icl&find=NUMBER+1", tmp_path / "profile")
    assert [int(index) for index in re.findall(r"sst2, row (\d+)<", document)] == wanted
    assert f"{len(wanted)} of 60 queries" in document


def test_in_a_browser_a_name_in_a_legend_switches_its_curves_off(run: Path, tmp_path: Path) -> None:
    """The page's own script runs first; what presses the button is put in by the test."""
    page = tmp_path / "report.html"
    write_page(page, page_of([read_run(run)]))
    press = "document.querySelector('.legend [data-curve=untrained]').click()"
    digest = base64.b64encode(hashlib.sha256(press.encode()).digest()).decode()
    text = page.read_text().replace("script-src ", f"script-src 'sha256-{digest}' ")
    page.write_text(text.replace("</body>", f"<script>{press}</script></body>"))
    document = in_browser(page, "", tmp_path / "profile")
    assert len(re.findall(r'<g class="curve control-\d off" data-curve="untrained"', document)) == 1
    assert len(re.findall(r'<button type="button" aria-pressed="false" data-curve="untrained"', document)) == 1


def test_in_a_browser_script_in_a_row_is_text(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_page(page, page_of([read_run(run)]))
    document = in_browser(page, "#queries?find=first", tmp_path / "profile")
    assert "<title>broken" not in document
    assert "1 of 60 queries" in document
    shown = HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f'<p class="prompt">{shown} first</p>' in document
