"""Who was right: the eight ways in which three views of a query can be right or wrong, and their names."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_icl.report.grid import Grid

# By who was right, (ZSL, ICL, FT): the word in a page's address, and the words for people.
OUTCOMES: dict[tuple[bool, bool, bool], tuple[str, str]] = {
    (False, True, True): ("corrected-both", "corrected by both"),
    (False, True, False): ("corrected-icl", "corrected by ICL alone"),
    (False, False, True): ("corrected-ft", "corrected by FT alone"),
    (True, False, False): ("broken-both", "broken by both"),
    (True, False, True): ("broken-icl", "broken by ICL alone"),
    (True, True, False): ("broken-ft", "broken by FT alone"),
    (True, True, True): ("right", "always right"),
    (False, False, False): ("wrong", "always wrong"),
}
# A run without fine-tuning has two views.
_WITHOUT_FT: dict[tuple[bool, bool], tuple[str, str]] = {
    (False, True): ("corrected-icl", "corrected by ICL"),
    (True, False): ("broken-icl", "broken by ICL"),
    (True, True): ("right", "always right"),
    (False, False): ("wrong", "always wrong"),
}


def outcome(row: Mapping[str, Any]) -> str:
    """The word for what became of a query, from its line of `predictions.jsonl`.

    >>> outcome({"gold": 1, "zsl": 0, "icl": 1, "ft": 1})
    'corrected-both'
    >>> outcome({"gold": 1, "zsl": 1, "icl": 0})
    'broken-icl'
    """
    zsl, icl = row["zsl"] == row["gold"], row["icl"] == row["gold"]
    if row.get("ft") is None:
        # A run without fine-tuning has no third view to be right or wrong.
        return _WITHOUT_FT[zsl, icl][0]
    return OUTCOMES[zsl, icl, row["ft"] == row["gold"]][0]


def titles(finetuned: bool = True) -> dict[str, str]:
    """The words for people by the word in the address."""
    return dict((OUTCOMES if finetuned else _WITHOUT_FT).values())


def right_count(table: Sequence[Sequence[Sequence[int]]], cell: tuple[bool, bool, bool]) -> int:
    """Queries of one outcome, from `rec2ftp.right_table[zsl][icl][ft]`."""
    return int(table[cell[0]][cell[1]][cell[2]])


def right_grid(results: Mapping[str, Any]) -> Grid | None:
    """The table of who was right, one row for each outcome; None where nothing was fine-tuned."""
    table = (results.get("rec2ftp") or {}).get("right_table")
    if table is None:
        return None
    # The table counts every query once, so its sum is the number of queries.
    count = sum(right_count(table, cell) for cell in OUTCOMES)
    rows = []
    for cell, (_, title) in OUTCOMES.items():
        queries = right_count(table, cell)
        marks = ("right" if right else "wrong" for right in cell)
        rows.append((title, *marks, str(queries), f"{100 * queries / count:.1f}" if count else "–"))
    return Grid(
        name=f"who_was_right_{results['task']['name']}",
        title=f"Who was right, {results['task']['name']}",
        header=("", "ZSL", "ICL", "FT", "queries", "percent"),
        rows=tuple(rows),
    )
