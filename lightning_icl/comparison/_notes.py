"""What keeps a reader of a result from a wrong conclusion: one table of notes, each with the condition it stands for.

Conditions look at the content of `results.json` alone, so that they can be tried on made-up results.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, TypeGuard

from lightning_icl.errors import shown
from lightning_icl.measures import table_figures

ONE_CLASS = 0.95
"""Share of queries answered alike that counts as nearly all."""
FEW_QUERIES = 10
"""Queries below which shares of answers tell nothing."""
FEW_CORRECTIONS = 20
"""Corrected queries below which Rec2FTP is a share of few: one query moves it by 5 points or more."""
NEAR_ZERO, APART = 0.05, 0.1
"""Raw SimAOU that counts as none, and by how much the normalised form must exceed it."""
ROUNDING = 1e-3
"""Rounding that reaches the last digit printed."""
UNDECIDED = 100
"""How many times as large one rate may be as another before a choice between the two must rest on more than chance."""
SENSITIVE = 2e-3
"""Change of a similarity under a rounding of the weights that is more than rounding of the result."""

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Note:
    """One row of the table."""

    name: str
    """What it is called in `results.json`."""
    text: Callable[[Results], str | None]
    """What is to be said of a result; None where there is nothing to say."""


def notes_of(results: Results) -> list[dict[str, str]]:
    """All that is to be said of a result, in the order of the table: names and texts."""
    texts = ((note.name, note.text(results)) for note in NOTES)
    return [{"name": name, "text": text} for name, text in texts if text]


def _loss_rose(results: Results) -> str | None:
    """The mean of the second half of the steps against the first, beyond twice the standard error of the difference."""
    losses = (results.get("finetune") or {}).get("loss") or []
    first, second = losses[: len(losses) // 2], losses[len(losses) // 2 :]
    # One loss has no standard deviation.
    if len(first) < 2:
        return None
    # Standard error of a difference of two means: their variances add.
    error = math.hypot(stdev(first) / math.sqrt(len(first)), stdev(second) / math.sqrt(len(second)))
    if fmean(second) - fmean(first) <= 2 * error:
        return None
    return (
        f"the loss of fine-tuning rose from {fmean(first):.2f} in the first half of its steps to {fmean(second):.2f} "
        "in the second: it does not learn, and what is compared with it means little; use a smaller --lr"
    )


def _rate(results: Results) -> str | None:
    """What `--lr auto` has to say of the rate that it chose."""
    choice = (results.get("finetune") or {}).get("choice") or {}
    if not choice.get("note"):
        return None
    return f"the rate {choice['rate']:g} was chosen among {len(choice['trials'])}: {_as_clause(choice['note'])}"


def _undecided(results: Results) -> str | None:
    """Rates far apart that score alike on the held-out rows: within one standard error of the chosen one's accuracy."""
    choice = (results.get("finetune") or {}).get("choice") or {}
    trials, count = choice.get("trials") or [], choice.get("held_out") or 0
    usable = {
        trial["rate"]: trial["accuracy"]
        for trial in trials
        if trial.get("out") is None and _is_number(trial.get("accuracy"))
    }
    best = usable.get(choice.get("rate"))
    if not count or best is None:
        return None
    # One row more of each kind: otherwise the error of 0 or 100% would be none.
    share_right = (best * count + 1) / (count + 2)
    error = math.sqrt(share_right * (1 - share_right) / (count + 2))
    close = [rate for rate, share in usable.items() if share >= best - error]
    # A factor of 99.99… is rounding in the grid.
    if max(close) < UNDECIDED * min(close) * 0.999:
        return None
    return (
        f"on the {count} held-out rows rates as far apart as {min(close):g} and {max(close):g} score alike (within one "
        f"standard error, {100 * error:.0f} points): another draw or another processor may choose another than "
        f"{choice['rate']:g}"
    )


def _as_clause(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _one_class(view: str, name: str) -> Callable[[Results], str | None]:
    def text(results: Results) -> str | None:
        answers = results.get("answers") or {}
        chosen, gold = answers.get(view) or [], answers.get("gold") or []
        total = sum(chosen)
        # A task whose right answers are nearly all one class may rightly be answered so.
        if len(chosen) < 2 or total < FEW_QUERIES or max(chosen) < ONE_CLASS * total or max(gold) >= ONE_CLASS * total:
            return None
        number = chosen.index(max(chosen))
        labels = (results.get("task") or {}).get("labels") or []
        # Rows with options of their own have no common labels.
        answer = repr(labels[number]) if number < len(labels) else f"its option {number}"
        return f"{name} gives {100 * max(chosen) / total:.0f}% of the queries one answer, {answer}"

    return text


def _uneven(results: Results) -> str | None:
    """A view that nearly always gives an answer of more tokens than another: continuations are easy to predict."""
    task, answers = results.get("task") or {}, results.get("answers") or {}
    tokens = [len(ids) for ids in task.get("answer_token_ids") or []]
    for view, name in (("zsl", "zero-shot"), ("icl", "in-context learning"), ("ft", "fine-tuning")):
        chosen = answers.get(view) or []
        total = sum(chosen)
        # Options of rows cannot be compared by number: their lengths differ from row to row.
        if not tokens or len(chosen) > len(tokens) or total < FEW_QUERIES or max(chosen) < ONE_CLASS * total:
            continue
        number = chosen.index(max(chosen))
        if tokens[number] > min(tokens):
            return (
                f"{name} gives nearly all queries the answer {shown(task['labels'][number])} of {tokens[number]} "
                f"tokens, where others have {min(tokens)}: an answer's score is the mean over its tokens, and later "
                "tokens of a word are easy to predict; choose answers of equally many tokens"
            )
    return None


def _no_better(view: str, name: str) -> Callable[[Results], str | None]:
    def text(results: Results) -> str | None:
        accuracy = results.get("accuracy") or {}
        reached = accuracy.get(view)
        if not _is_number(reached):
            return None
        others = (("zsl", "zero-shot"), ("majority", "the majority class"))
        above = [
            f"{other} ({100 * accuracy[key]:.1f}%)"
            for key, other in others
            if _is_number(accuracy.get(key)) and reached <= accuracy[key]
        ]
        if not above:
            return None
        return f"{name} ({100 * reached:.1f}%) is no better than {' and '.join(above)}: its answers show no learning"

    return text


def _few_corrections(results: Results) -> str | None:
    rec2ftp = results.get("rec2ftp") or {}
    count = rec2ftp.get("corrected_by_ft")
    if not count or count >= FEW_CORRECTIONS:  # of none it is undefined, which has a reason of its own
        return None
    queries = "1 query that fine-tuning corrects" if count == 1 else f"{count} queries that fine-tuning corrects"
    return f"Rec2FTP is a share of {queries}: one query more or less moves it by {100 / count:.0f} points"


def _normalised_alone(results: Results) -> str | None:
    level = results.get("sim_aou") or {}
    value, raw = level.get("value"), level.get("raw")
    # A raw similarity near zero with a large normalised one: what both outputs share comes from normalising.
    if not (_is_number(value) and _is_number(raw)) or abs(raw) >= NEAR_ZERO or value - raw < APART:
        return None
    return (
        f"SimAOU is {value:.3f}, but {raw:.3f} before outputs are normalised: the direction that both share is that "
        "of the zero-shot output, not of an update"
    )


def _rounded(results: Results) -> str | None:
    figures = results.get("rounding") or {}
    printed = {figure.path for figure in table_figures()}
    reached = {
        name: share for name, share in figures.items() if name in printed and _is_number(share) and share > ROUNDING
    }
    if not reached:
        return None
    # The figure that rounding moves most stands for all.
    name = max(reached, key=lambda figure: reached[figure])
    return (
        f"updates are so small that rounding may move {len(reached)} {'figure' if len(reached) == 1 else 'figures'}, "
        f"{name} by {reached[name]:.2g}; use --precision 64"
    )


def _partly_undefined(results: Results) -> str | None:
    left_out = {
        name: entry["share"]
        for name, entry in (results.get("undefined_queries") or {}).items()
        if name.startswith("sim_aou.per_layer")
    }
    curve = (results.get("sim_aou") or {}).get("per_layer") or []
    empty = sum(not _is_number(value) for value in curve)
    if not curve or empty == len(curve) or not (left_out or empty):
        return None
    share = (empty + sum(left_out.values())) / len(curve)
    return f"SimAOU leaves out {100 * share:.0f}% of queries and layers, where an update is zero up to rounding"


def _sensitive(results: Results) -> str | None:
    changes = (results.get("finetune") or {}).get("sensitivity") or {}
    count = (results.get("queries") or {}).get("count") or 1
    large = {
        name: change
        for name, change in changes.items()
        # Shares of queries move in steps of one query; only more than that step is a sign.
        if _is_number(change) and change > (1.5 / count if name.startswith(("accuracy", "rec2ftp")) else SENSITIVE)
    }
    if not large:
        return None
    name = max(large, key=lambda figure: large[figure])
    return (
        f"fine-tuning again from weights changed by no more than float32 rounding moves {name} by {large[name]:.3f}: "
        "its figures differ from one processor to the next"
    )


def _repeated(results: Results) -> str | None:
    count = (results.get("task") or {}).get("repeated_queries") or 0
    if not count:
        return None
    total = (results.get("queries") or {}).get("count")
    return f"{count} of {total} queries repeat the prompt of a demonstration: their answer can be copied from it"


def _joined(results: Results) -> str | None:
    words = (results.get("task") or {}).get("joined_answers") or []
    if not words:
        return None
    return (
        f"the tokenizer joins the end of a prompt and the beginning of {', '.join(map(shown, words[:3]))} into one "
        "token, so these answers are encoded apart from the prompt and have other tokens than in running text"
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


NOTES: Sequence[Note] = (
    Note("loss-rose", _loss_rose),
    Note("rate-choice", _rate),
    Note("rate-undecided", _undecided),
    Note("ft-one-class", _one_class("ft", "fine-tuning")),
    Note("icl-one-class", _one_class("icl", "in-context learning")),
    Note("uneven-answers", _uneven),
    Note("ft-no-better", _no_better("ft", "fine-tuning")),
    Note("icl-no-better", _no_better("icl", "in-context learning")),
    Note("few-corrections", _few_corrections),
    Note("normalised-alone", _normalised_alone),
    Note("repeated-queries", _repeated),
    Note("joined-answers", _joined),
    Note("partly-undefined", _partly_undefined),
    Note("rounding", _rounded),
    Note("sensitive", _sensitive),
)
