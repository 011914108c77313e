"""The ladder in the terminal, from the content of `weight_update.json` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

TITLES: Mapping[str, str] = {
    "zsl": "absent (zero-shot)",
    "none": "not seen",
    "linear-raw": "linear, as in the paper",
    "linear": "linear, scaled by head",
    "constant": "vector",
    "constant-mass": "vector, mass by query",
    "affine": "vector and matrix",
    "quadratic": "second order in the query",
    "softmax": "seen by last token only",
    "icl": "seen (ICL)",
    "ft": "learnt (FT)",
}
"""What the demonstrations are under each condition, from the crudest to the finest."""
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
SCOPES: Mapping[str, str] = {
    "probe": "at the prompt's last token; the query's other tokens attend to the demonstrations as ever",
    "query": "at all tokens of the query",
    "alone": "at the prompt's last token; the query's other tokens do not see the demonstrations",
}


def print_ladder(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the tables of one task."""
    console = console or Console()
    console.print(
        f"[bold]{escape(content['model']['name'])}[/] on [bold]{escape(content['task']['name'])}[/]: "
        f"{content['queries']['count']} queries, {content['demonstrations']['count']} demonstrations. Attention to the "
        f"demonstrations is replaced {SCOPES[content['scope']]}.",
        highlight=False,
    )
    console.print(ladder_table(content))
    console.print(
        "KL: nats, from in-context learning's distribution of the next token, and of the answers. Margins: an answer's "
        "score\nabove the others'. SimAOU: cosine of updates of attention outputs. Rungs are expanded about the mean "
        f"query of {content['held_out']['count']}\nheld-out prompts in context.",
        style="dim",
        highlight=False,
    )
    for name, reason in content["dropped"].items():
        console.print(f"– {escape(name)}: {escape(reason)}", style="dim", highlight=False)
    if content["depth"] is not None:
        console.print(f"\n[bold]KL from ICL with {content['depth']['rung']} in some layers[/]", highlight=False)
        console.print(depth_table(content))


def ladder_table(content: Mapping[str, Any]) -> Table:
    """One row for each condition."""
    table = Table()
    table.add_column("", vertical="bottom")
    table.add_column("the demonstrations are", vertical="bottom")
    for _, heading, _ in FIGURES:
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    for name, title in TITLES.items():
        if name in content["conditions"]:
            cells = _cells(name, content["conditions"][name])
            table.add_row(name, title, *cells, end_section=name in ("zsl", "quadratic"))
    return table


_SELF = {"icl": ("agreement", "kl", "answer_kl", "margin_correlation", "simaou_icl"), "ft": ("rec2ftp", "simaou_ft")}


def _cells(name: str, figures: Mapping[str, float | None]) -> list[str]:
    """A condition's figures; those that compare it with itself are left out."""
    return [shown(None if key in _SELF.get(name, ()) else figures[key], form) for key, _, form in FIGURES]


def depth_table(content: Mapping[str, Any]) -> Table:
    """One row for each layer."""
    depth = content["depth"]
    table = Table()
    for heading in ("layer", "up to it", "from it on", "alone"):
        table.add_column(heading, justify="right")
    for layer, names in enumerate(zip(depth["up_to"], depth["from"], depth["alone"], strict=True)):
        values = (content["conditions"].get(name, {}).get("kl") for name in names)
        table.add_row(str(layer), *(shown(value, ".3g") for value in values))
    return table


def shown(value: float | None, form: str) -> str:
    """A number, or a dash for what is undefined."""
    return "–" if value is None or value != value else format(value, form).removesuffix("%")
