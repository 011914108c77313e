"""The ladder of weight updates as tables: what of in-context learning is left on every rung."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_icl.report._head_matrices import Ladder, matrix_grids, shown
from lightning_icl.report.grid import Grid
from lightning_icl.results import finished_parts
from lightning_icl.saved_json import read_json

WEIGHT_UPDATE = "weight_update.json"

TITLES: Mapping[str, str] = {
    "zsl": "absent (zero-shot)",
    "none": "not seen",
    "linear-raw": "linear, as in the paper",
    "linear": "linear, scaled by head",
    "constant": "a vector",
    "constant-mass": "a vector, mass by query",
    "affine": "a vector and a matrix",
    "quadratic": "second order in the query",
    "softmax": "seen by the last token only",
    "icl": "seen (in-context)",
    "ft": "learnt (fine-tuned)",
}
"""What the demonstrations are under each condition, the crudest rung first."""
FIGURES: Sequence[tuple[str, str, str]] = (
    ("accuracy", "accuracy", ".1%"),
    ("agreement", "agrees\nwith ICL", ".1%"),
    ("kl", "KL from\nICL", ".3g"),
    ("answer_kl", "KL over\nanswers", ".3g"),
    ("margin_correlation", "margins'\ncorrelation", ".3f"),
    ("rec2ftp", "Rec2FTP", ".1%"),
    ("simaou_icl", "SimAOU\nwith ICL", ".3f"),
    ("simaou_ft", "SimAOU\nwith FT", ".3f"),
)
"""Name, heading and format of each column."""
_SCOPES: Mapping[str, str] = {
    "probe": "the prompt's last token; the query's other tokens attend to the demonstrations as ever",
    "query": "all tokens of the query",
    "alone": "the prompt's last token; the query's other tokens do not see the demonstrations",
}
# Figures that compare a condition with itself, which say nothing.
_SELF = {"icl": ("agreement", "kl", "answer_kl", "margin_correlation", "simaou_icl"), "ft": ("rec2ftp", "simaou_ft")}


def read_ladders(folder: Path) -> list[Ladder]:
    """The finished tasks of a run of `weight-update`, or the one task of a task folder; none where it is no such run.

    Raises:
        OutputError: a file cannot be read, or is damaged.
    """
    own = folder / WEIGHT_UPDATE
    return [read_json(path, "weight_update") for path in ([own] if own.is_file() else finished_parts(folder, own.name))]


def ladder_grids(ladder: Ladder, *, intervals: bool = False) -> list[Grid]:
    """The tables of the rungs, of layers where a rung was put into some of them, and of the updates as matrices.

    Args:
        ladder: of one task.
        intervals: whether each figure has its interval below.
    """
    depth = [] if ladder["depth"] is None else [_layers(ladder)]
    return [_rungs(ladder, intervals), *depth, *matrix_grids(ladder)]


def _rungs(ladder: Ladder, intervals: bool) -> Grid:
    names = [name for name in TITLES if name in ladder["conditions"]]
    return Grid(
        name=f"ladder_{ladder['task']['name']}_{ladder['scope']}",
        title=f"{ladder['model']['name']} on {ladder['task']['name']}: the demonstrations as an update of each head",
        header=("the demonstrations are", *(heading for _, heading, _ in FIGURES)),
        rows=tuple((f"{name}\n{TITLES[name]}", *_cells(ladder, name, intervals)) for name in names),
        notes=_notes(ladder),
        sections=tuple(number for number, name in enumerate(names) if name in ("none", "softmax", "icl")),
        numbers=_numbers(ladder, names),
    )


def _cells(ladder: Ladder, name: str, intervals: bool) -> list[str]:
    cells = []
    for key, _, form in FIGURES:
        # A condition compared with itself has a fixed value that looks like a result.
        value = None if key in _SELF.get(name, ()) else ladder["conditions"][name][key]
        ends = ladder["intervals"][name][key]
        between = f"\n{shown(ends[0], form)}–{shown(ends[1], form)}" if intervals and value is not None and ends else ""
        cells.append(shown(value, form) + between)
    return cells


def _notes(ladder: Ladder) -> tuple[str, ...]:
    return (
        f"Replaced is the attention of {_SCOPES[ladder['scope']]}",
        f"{ladder['queries']['count']} queries, {ladder['demonstrations']['count']} demonstrations; the rungs are "
        f"expanded about the mean query of {ladder['held_out']['count']} held-out prompts in context",
        "KL: nats, from in-context learning's distribution of the next token, and of the answers; margins: an answer's "
        "score above the others'; SimAOU: cosine of updates of attention outputs",
        *(f"{name} is left out: {reason.rstrip('.')}" for name, reason in ladder["dropped"].items()),
    )


def _numbers(ladder: Ladder, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Unrounded figures with their intervals, one condition a line."""
    header = ["condition"]
    for key, _, _ in FIGURES:
        header += [key, f"{key}_low", f"{key}_high"]
    lines = [tuple(header)]
    for name in names:
        line = [name]
        for key, _, _ in FIGURES:
            values = (ladder["conditions"][name][key], *(ladder["intervals"][name][key] or (None, None)))
            line += ["" if value is None else repr(value) for value in values]
        lines.append(tuple(line))
    return tuple(lines)


def _layers(ladder: Ladder) -> Grid:
    depth = ladder["depth"]
    # Three ways to put a rung into some layers, side by side.
    columns = (depth["up_to"], depth["from"], depth["alone"])
    return Grid(
        name=f"ladder_depth_{ladder['task']['name']}_{ladder['scope']}",
        title=f"KL from in-context learning with {depth['rung']} in some of the layers, {ladder['task']['name']}",
        header=("layer", "up to it", "from it on", "in it alone"),
        rows=tuple(
            (str(layer), *(shown((ladder["conditions"].get(name) or {}).get("kl"), ".3g") for name in names))
            for layer, names in enumerate(zip(*columns, strict=True))
        ),
    )
