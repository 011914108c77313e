"""Each note stands where its condition holds, and nowhere else: tried on made-up results, one change at a time."""

import copy
from typing import Any

import pytest

from lightning_icl.comparison._notes import NOTES, notes_of

SOUND: dict[str, Any] = {
    "task": {"labels": ["Negative", "Positive"]},
    "queries": {"count": 200},
    "finetune": {"loss": [4.3, 4.1, 4.4, 4.0, 3.2, 3.4, 3.1, 3.3], "sensitivity": {"accuracy.ft": 0.005}},
    "answers": {"gold": [110, 90], "zsl": [160, 40], "icl": [120, 80], "ft": [100, 100]},
    "accuracy": {"zsl": 0.6, "icl": 0.8, "ft": 0.75, "majority": 0.55},
    "rec2ftp": {"value": 0.8, "corrected_by_ft": 40},
    "sim_aou": {"value": 0.3, "raw": 0.25, "per_layer": [0.3, 0.3]},
    "rounding": {"sim_aou.value": 1e-5, "sim_aou.per_layer": [0.5, 1e-5]},
    "undefined_queries": {"sim_am.difference_per_layer[1]": {"share": 0.5, "reason": "…"}},
}


def chosen(
    rate: float, held_out: int, accuracies: dict[float, float | None], diverged: dict[float, float] | None = None
) -> dict[str, Any]:
    """A choice among rates, by accuracy on held-out rows."""
    trials = [{"rate": rate, "accuracy": accuracy, "out": None} for rate, accuracy in accuracies.items()]
    trials += [{"rate": rate, "accuracy": accuracy, "out": "no"} for rate, accuracy in (diverged or {}).items()]
    return {"finetune.choice": {"rate": rate, "held_out": held_out, "note": "", "trials": trials}}


CASES = [
    ("loss-rose", {"finetune.loss": [4.3, 4.1, 4.4, 4.0, 11.0, 9.0, 7.0, 7.5]}, "rose from 4.20"),
    (
        "rate-choice",
        {"finetune.choice": {"rate": 0.0002, "trials": [{}] * 9, "note": "It stands at the edge of the rates tried."}},
        "the rate 0.0002 was chosen among 9: it stands at the edge of the rates tried",
    ),
    (
        "rate-undecided",
        # 14 and 16 of 28 rows: less than one standard error (9 points) apart, and the last one was left out.
        chosen(0.1, 28, {0.0001: 0.5, 0.001: 0.4, 0.1: 16 / 28}, diverged={1.0: 0.5}),
        "28 held-out rows rates as far apart as 0.0001 and 0.1 score alike (within one standard error, 9 points)",
    ),
    # Just a hundred times apart; the error of a share of 1 is not nothing; and what was not judged has no say.
    ("rate-undecided", chosen(0.02, 64, {0.0002: 0.5, 0.02: 0.5}), "as far apart as 0.0002 and 0.02"),
    ("rate-undecided", chosen(0.1, 64, {0.001: 1.0, 0.1: 1.0, 1.0: None}), "within one standard error, 2 points"),
    ("ft-one-class", {"answers.ft": [4, 196]}, "98% of the queries one answer, 'Positive'"),
    ("icl-one-class", {"answers.icl": [200, 0]}, "100% of the queries one answer, 'Negative'"),
    ("ft-no-better", {"accuracy.ft": 0.6}, "no better than zero-shot (60.0%)"),
    ("icl-no-better", {"accuracy.icl": 0.5}, "zero-shot (60.0%) and the majority class (55.0%)"),
    ("few-corrections", {"rec2ftp.corrected_by_ft": 4}, "4 queries that fine-tuning corrects"),
    ("few-corrections", {"rec2ftp.corrected_by_ft": 1}, "1 query that fine-tuning corrects"),
    ("normalised-alone", {"sim_aou.raw": -0.01}, "SimAOU is 0.300, but -0.010 before"),
    ("partly-undefined", {"sim_aou.per_layer": [None, 0.3]}, "50% of queries and layers"),
    (
        "partly-undefined",
        {"undefined_queries": {"sim_aou.per_layer[1]": {"share": 0.5, "reason": "…"}}},
        "25% of queries and layers",
    ),
    (
        "uneven-answers",
        {"task.answer_token_ids": [[1], [2, 3, 4]], "answers.zsl": [4, 196]},
        "zero-shot gives nearly all queries the answer 'Positive' of 3 tokens, where others have 1",
    ),
    ("repeated-queries", {"task.repeated_queries": 3}, "3 of 200 queries repeat the prompt"),
    ("joined-answers", {"task.joined_answers": ["no", "so"]}, "the beginning of 'no', 'so' into one"),
    ("rounding", {"rounding": {"sim_aou.raw": 0.003}}, "sim_aou.raw by 0.003; use --precision 64"),
    ("sensitive", {"finetune.sensitivity": {"sim_aou.value": 0.01}}, "moves sim_aou.value by 0.010"),
    ("sensitive", {"finetune.sensitivity": {"accuracy.ft": 0.02}}, "moves accuracy.ft by 0.020"),
]
HARMLESS = [
    {"task.answer_token_ids": [[1], [2, 3, 4]], "answers.zsl": [196, 4]},
    {"task.answer_token_ids": [[1, 5], [2, 3]], "answers.zsl": [4, 196]},
    {"finetune.loss": [4.0, 3.0, 4.2, 3.1, 4.1, 3.2, 4.3, 3.0]},
    {"finetune.choice": {"rate": 0.01, "trials": [{}] * 9, "note": ""}},
    # Alike and less than a hundred times apart; further apart and not alike; nothing but the chosen rate.
    chosen(0.02, 64, {0.0005: 0.5, 0.02: 0.5}),
    chosen(0.01, 400, {0.0001: 0.55, 0.01: 0.62}),
    chosen(0.01, 400, {0.01: 1.0}),
    {"answers.ft": [4, 196], "answers.gold": [4, 196]},
    {"answers.ft": [1, 0], "answers.gold": [0, 1]},
    {"rec2ftp.corrected_by_ft": 0, "rec2ftp.value": None},
    {"sim_aou.value": 0.05, "sim_aou.raw": 0.01},
    {"finetune": None, "answers.ft": None, "accuracy.ft": None, "rec2ftp": None, "sim_aou": None, "rounding": None},
    {"sim_aou.per_layer": [None, None], "sim_aou.value": None},
]


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    results = copy.deepcopy(SOUND)
    for key, value in changes.items():
        level, _, name = key.partition(".")
        if name:
            results[level][name] = value
        else:
            results[level] = value
    return results


def test_a_sound_result_has_none() -> None:
    assert notes_of(SOUND) == []


@pytest.mark.parametrize(("name", "changes", "words"), CASES)
def test_a_condition_brings_its_note_alone(name: str, changes: dict[str, Any], words: str) -> None:
    (note,) = notes_of(changed(changes))
    assert note["name"] == name
    assert words in note["text"]


@pytest.mark.parametrize("changes", HARMLESS, ids=str)
def test_what_is_near_a_condition_brings_none(changes: dict[str, Any]) -> None:
    assert notes_of(changed(changes)) == []


def test_every_note_of_the_table_is_tried() -> None:
    assert {note.name for note in NOTES} == {name for name, _, _ in CASES}
