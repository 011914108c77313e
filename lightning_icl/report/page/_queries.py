"""The queries of a run as data for the page: what was asked, what each view answered, what became of it."""

import json
from collections.abc import Sequence
from typing import Any

from lightning_icl.report.outcomes import outcome, titles
from lightning_icl.results import PREDICTIONS, TaskRun
from lightning_icl.saved_json import read_json_lines

_VIEWS = ("zsl", "icl", "ft")


def read_predictions(run: TaskRun) -> list[dict[str, Any]]:
    """The lines of `predictions.jsonl`; none where a run has no such file.

    Raises:
        OutputError: a line is no JSON object with the keys of a prediction.
    """
    path = run.folder / PREDICTIONS
    if not path.is_file():
        return []
    return read_json_lines(path, "predictions")


def query_data(runs: Sequence[TaskRun]) -> dict[str, Any]:
    """What the page's list of queries needs, small: labels and outcomes are numbers into lists.

    Returns:
        `kinds` ([word, title] of each outcome), `tasks` (name and labels), and `rows` of
        [task, index, gold, outcome, [choice of each view], [scores of each view or null], prompt or null].
    """
    read = [read_predictions(run) for run in runs]
    finetuned = any(row.get("ft") is not None for rows in read for row in rows)
    kinds = titles(finetuned)
    order = {word: number for number, word in enumerate(kinds)}
    return {
        "kinds": [list(pair) for pair in kinds.items()],
        "tasks": [{"name": run.task, "labels": list(run.results["task"].get("labels") or [])} for run in runs],
        "rows": [_row(number, row, order) for number, rows in enumerate(read) for row in rows],
    }


def _row(task: int, row: dict[str, Any], order: dict[str, int]) -> list[Any]:
    scores = row.get("scores") or {}
    return [
        task,
        row["index"],
        row["gold"],
        order[outcome(row)],
        [row.get(view) for view in _VIEWS],
        [_short(scores.get(view)) for view in _VIEWS],
        row.get("prompt"),
    ]


def _short(scores: list[float | None] | None) -> list[float | None] | None:
    # Three decimals are what the page shows; more would double its size.
    return None if scores is None else [None if score is None else round(score, 3) for score in scores]


def json_data(content: Any) -> str:
    """Data for a script element, which no text of it can leave: `<`, `>` and `&` are escaped inside the JSON strings.

    >>> json_data("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    # Non-ASCII stays as it is: the page is UTF-8, and escapes would triple such text.
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
