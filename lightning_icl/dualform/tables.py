"""The dual form in the terminal, from the content of `dual_form.json` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lightning_icl.console import terminal
from lightning_icl.dualform.synthetic import Case

_TOP = 8
Columns = Sequence[tuple[str, str, str]]
"""Heading, name in `per_layer`, format."""

SOFTMAX: Columns = (
    ("identity\nerror", "identity_error", ".0e"),
    ("linear:\ncosine", "linear_cosine", ".3f"),
    ("relative\nerror", "linear_error", ".3g"),
    ("first order:\ncosine", "first_order_cosine", ".3f"),
    ("relative\nerror", "first_order_error", ".3f"),
    ("ΔW_ICL q and\nsoftmax's update", "update_cosine", ".3f"),
)
UPDATES: Columns = (
    ("cosine", "cosine", ".3f"),
    ("cosine of\neffects on q", "effect_cosine", ".3f"),
    ("norm ratio\nFT : ICL", "norm_ratio", ".3g"),
    ("left\noverlap", "left_overlap", ".3f"),
    ("right\noverlap", "right_overlap", ".3f"),
    ("rank\nICL", "icl_rank", ".1f"),
    ("rank\nFT", "ft_rank", ".1f"),
    ("cosine\nW_ZSL, ICL", "zsl_icl_cosine", ".3f"),
    ("cosine\nW_ZSL, FT", "zsl_ft_cosine", ".3f"),
    ("drift of\nown tokens", "own_drift", ".3f"),
)
PATCHES: Columns = (
    ("identity\nerror", "patch_identity_error", ".0e"),
    ("cosine\nICL, FT", "patch_cosine", ".3f"),
    ("ICL, FT of\nanother query", "patch_other_cosine", ".3f"),
    ("size of patch\nICL", "patch_icl_size", ".3g"),
    ("size of patch\nFT", "patch_ft_size", ".3g"),
)


def print_dual(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the tables of one task."""
    console = console or terminal()
    task, model = content["task"]["name"], content["model"]
    console.print(
        f"[bold]{escape(model['name'])}[/] on [bold]{escape(task)}[/]: {content['queries']['count']} queries, "
        f"{len(content['demonstrations'])} demonstrations; means over queries and heads",
        highlight=False,
    )
    for part in model["left_out"]:
        console.print(f"– {part} is no part of the linear form", style="dim", highlight=False)
    _section(
        console,
        "A head as a matrix: (W_ZSL + ΔW_ICL) q = Σ v (k · q)",
        layer_table(content, SOFTMAX),
        "Identity error: the largest, both sides in the working precision. Linear: W q, scaled, against the softmax "
        "head's output.\nFirst order: mean value + covariance of values and keys at q, the softmax of small scores. "
        "Last: direction of ΔW_ICL q\nagainst what the demonstrations really change in the head's output.",
    )
    _section(
        console,
        "The two updates: ΔW_ICL from demonstrations, ΔW_FT from fine-tuning",
        layer_table(content, UPDATES),
        f"Overlap: mean squared cosine of the principal angles of the {content['subspace_rank']} leading singular "
        f"vectors (random: {content['subspace_overlap_of_random']:.2f}). Rank: effective.\nControls: cosine of each "
        "update with W_ZSL, which no demonstration has touched. Drift: how far the query's own part moves\nwith the "
        "context, which the derivation holds fixed, relative to W_ZSL.",
    )
    _section(
        console,
        "The implicit patch of the MLP: ΔW = W (a_C − a) aᵀ / ‖a‖²",
        layer_table(content, PATCHES),
        "The patch that the context makes against the one that fine-tuning induces; sizes relative to W. Control: the "
        "context's effect\non a query against fine-tuning's effect on another: as alike as what all queries have in "
        "common makes them.",
    )
    _section(
        console,
        f"Demonstrations by their share in ΔW_ICL (the {min(_TOP, len(content['demonstrations']))} largest)",
        share_table(content),
        "Share: projection on ΔW_ICL, summing to 1 over all demonstrations. Norm: ‖ΔW_i‖ / ‖ΔW_ICL‖.",
    )


def _section(console: Console, title: str, table: Table, note: str) -> None:
    console.print(f"\n[bold]{title}[/]", highlight=False)
    console.print(table)
    console.print(note, style="dim", highlight=False)


def layer_table(content: Mapping[str, Any], columns: Columns) -> Table:
    """One row for each layer, and their mean."""
    table = Table()
    table.add_column("layer", justify="right", vertical="bottom")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", vertical="bottom")
    values = {name: content["per_layer"][name] for _, name, _ in columns}
    for row, layer in enumerate(content["layers"]):
        table.add_row(str(layer), *(shown(values[name][row], form) for _, name, form in columns))
    if len(content["layers"]) > 1:
        table.add_section()
        means = ((_mean(values[name], name), form) for _, name, form in columns)
        table.add_row("mean", *(shown(value, form) for value, form in means))
    return table


def _mean(values: Sequence[float | None], name: str) -> float | None:
    """Mean of what is defined; of identity errors the largest."""
    defined = [value for value in values if value is not None and value == value]
    if not defined:
        return None
    return max(defined) if "identity" in name else sum(defined) / len(defined)


def shown(value: float | None, form: str) -> str:
    """A number, or a dash for what is undefined."""
    return "–" if value is None or value != value else format(value, form)


def share_table(content: Mapping[str, Any]) -> Table:
    """The demonstrations with the largest shares, and their text."""
    table = Table()
    for heading in ("", "share", "norm", "tokens"):
        table.add_column(heading, justify="right")
    table.add_column("demonstration", no_wrap=True, overflow="ellipsis")
    ranked = sorted(content["demonstrations"], key=lambda item: -(item["share"] or 0.0))
    for item in ranked[:_TOP]:
        text = Text(" ".join(item["text"].split()))
        figures = (shown(item["share"], ".3f"), shown(item["relative_norm"], ".3f"), str(item["tokens"]))
        table.add_row(f"{item['number'] + 1}", *figures, text)
    return table


def print_synthetic(cases: Sequence[Case], console: Console | None = None) -> None:
    """Print the cases whose answer is known."""
    table = Table()
    table.add_column("what must be equal")
    table.add_column("shown by")
    table.add_column("largest difference", justify="right")
    table.add_column("size of the answer", justify="right")
    for case in cases:
        table.add_row(case.title, case.source, f"{case.error:.1e}", f"{case.size:.2f}")
    (console or terminal()).print(table)
