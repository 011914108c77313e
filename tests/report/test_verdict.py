"""The sentences at the top of the page, and the charts of controls, against what the run has saved."""

from pathlib import Path
from typing import Any

import pytest
from made_runs import repetition, save

from lightning_icl.measures import FIGURES
from lightning_icl.report.forest import forest_rows
from lightning_icl.report.page.html import run_page
from lightning_icl.report.tables import reader_notes
from lightning_icl.report.verdict import main_figure, verdict
from lightning_icl.results import read_run


def paired(difference: float, p: float) -> dict[str, Any]:
    return {"sim_aou.value": {"difference": difference, "low": difference - 0.1, "high": difference + 0.1, "p": p}}


def run(folder: Path, **changes: Any) -> Any:
    results = repetition() | changes
    results["accuracy"] = {"zsl": 0.5, "icl": 0.875, "ft": 0.625}
    results["rec2ftp"] |= {"value": 0.9, "corrected_by_ft": 49}
    results["sim_aou"] |= {"value": 0.3, "random": -0.001}
    return read_run(save(folder, results))


CONTROLS = {
    name: {"sim_aou": {"value": value}} for name, value in (("order", 0.31), ("untrained", 0.1), ("flat", 0.28))
}
PAIRED = {"order": paired(-0.01, 0.002), "untrained": paired(0.2, 0.002), "flat": paired(0.02, 0.4)}


def test_three_sentences_say_what_was_learnt_how_alike_and_beside_what(tmp_path: Path) -> None:
    learnt, alike, beside = verdict(
        run(tmp_path, controls=CONTROLS, paired=PAIRED, intervals={"sim_aou.value": [0.2, 0.4]})
    )
    assert learnt == (
        "With 8 demonstrations in the prompt (ICL), KoboldAI/fairseq-dense-1.3B answers 87.5% of the queries rightly, "
        "without (ZSL) 50.0%, fine-tuned on the demonstrations (FT) 62.5%."
    )
    assert alike == (
        "Of the 49 queries that fine-tuning corrects, the prompt corrects 90.0% too; the two move the representations "
        "alike with SimAOU 0.300 (95% interval 0.200–0.400; random −0.001)."
    )
    assert beside == (
        "SimAOU is lower under 1 of 3 controls (p < 0.05, corrected); as high or higher, or not told apart, under "
        "order (0.310), flat (0.280)."
    )


def test_a_run_without_controls_says_what_is_not_known(tmp_path: Path) -> None:
    assert "No control was measured" in verdict(run(tmp_path, controls={}))[-1]


def test_a_run_without_fine_tuning_claims_nothing(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("rec2ftp", "sim_aou", "sim_am", "kendall", "finetune"))
    results = repetition() | nothing | {"accuracy": {"zsl": 0.5, "icl": 0.875, "ft": None}, "controls": {}}
    sentences = verdict(read_run(save(tmp_path, results)))
    assert len(sentences) == 2
    assert sentences[1].startswith("Nothing was fine-tuned")


def test_notes_of_the_run_are_said_once_for_all_tasks_that_say_the_same(tmp_path: Path) -> None:
    for task, notes in (("sst2", ["the loss rose."]), ("cb", ["the loss rose.", "few corrections"])):
        save(tmp_path, repetition(task) | {"notes": [{"name": "n", "text": note} for note in notes]})
    tasks = read_run(tmp_path)
    assert set(reader_notes(tasks)) == {"cb, sst2: the loss rose", "cb: few corrections"}
    page = run_page(tasks)
    assert page.index("few corrections") < page.index('id="figures"')


def test_the_forest_has_the_run_and_every_control_with_its_interval(tmp_path: Path) -> None:
    intervals = {"order": {"sim_aou.value": [0.25, 0.35]}}
    saved = run(tmp_path, controls=CONTROLS, contrast_intervals=intervals, intervals={"sim_aou.value": [0.2, 0.4]})
    rows = forest_rows(main_figure(), saved)
    assert [(row.name, row.value, row.interval) for row in rows] == [
        ("this run", 0.3, (0.2, 0.4)), ("order", 0.31, pytest.approx((0.25, 0.35))), ("untrained", 0.1, None),
        ("flat", 0.28, None),
    ]  # fmt: skip
    kendall = next(figure for figure in FIGURES if figure.path == "kendall.value")
    assert [row.name for row in forest_rows(kendall, saved)] == ["this run"]
    assert run_page(saved).count('class="bar') == 4
