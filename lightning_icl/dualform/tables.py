"""The dual form as tables, from the content of `dual_form.json` alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_icl import console
from lightning_icl.dualform._synthetic import Case
from lightning_icl.report.grid import Grid
from lightning_icl.report.terminal import print_grid, print_notes
from lightning_icl.results import finished_parts
from lightning_icl.saved_json import read_json

DUAL_FORM = "dual_form.json"
_TOP = 8
_LETTERS = 60  # of a demonstration's text
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


def read_dual_forms(folder: Path) -> list[Mapping[str, Any]]:
    """The finished tasks of a run of `dual-form`.

    Raises:
        OutputError: a file cannot be read, or is damaged.
    """
    return [read_json(path, "dual_form") for path in finished_parts(folder, DUAL_FORM)]


def print_dual(content: Mapping[str, Any]) -> None:
    """Print the tables of one task."""
    model = content["model"]
    console.say(
        f"{model['name']} on {content['task']['name']}: {content['queries']['count']} queries, "
        f"{len(content['demonstrations'])} demonstrations; means over queries and heads",
        "bold",
    )
    print_notes(f"{part} is no part of the linear form" for part in model["left_out"])
    for grid in dual_grids(content):
        console.say("")
        print_grid(grid)


def dual_grids(content: Mapping[str, Any]) -> list[Grid]:
    """The tables of one task, each with what its columns mean."""
    random = f"{content['subspace_overlap_of_random']:.2f}"
    return [
        layer_grid(
            content,
            SOFTMAX,
            "A head as a matrix: (W_ZSL + ΔW_ICL) q = Σ v (k · q)",
            "identity error: the largest, both sides in the working precision; linear: W q, scaled, against the "
            "softmax head's output",
            "first order: mean value + covariance of values and keys at q, the softmax of small scores; last: "
            "direction of ΔW_ICL q against what the demonstrations really change in the head's output",
        ),
        layer_grid(
            content,
            UPDATES,
            "The two updates: ΔW_ICL from demonstrations, ΔW_FT from fine-tuning",
            f"overlap: mean squared cosine of the principal angles of the {content['subspace_rank']} leading singular "
            f"vectors (random: {random}); rank: effective",
            "controls: cosine of each update with W_ZSL, which no demonstration has touched; drift: how far the "
            "query's own part moves with the context, which the derivation holds fixed, relative to W_ZSL",
        ),
        layer_grid(
            content,
            PATCHES,
            "The implicit patch of the MLP: ΔW = W (a_C − a) aᵀ / ‖a‖²",
            "the patch that the context makes against the one that fine-tuning induces; sizes relative to W",
            "control: the context's effect on a query against fine-tuning's effect on another: as alike as what all "
            "queries have in common makes them",
        ),
        share_grid(content),
    ]


def layer_grid(content: Mapping[str, Any], columns: Columns, title: str, *notes: str) -> Grid:
    """One row for each layer, and their mean."""
    values = {name: content["per_layer"][name] for _, name, _ in columns}
    rows = [
        (str(layer), *(shown(values[name][row], form) for _, name, form in columns))
        for row, layer in enumerate(content["layers"])
    ]
    if len(rows) > 1:
        rows.append(("mean", *(shown(_mean(values[name], name), form) for _, name, form in columns)))
    return Grid(
        name=columns[0][1],
        title=title,
        header=("layer", *(heading for heading, _, _ in columns)),
        rows=tuple(rows),
        notes=notes,
        sections=(len(rows) - 1,) if len(rows) > 1 else (),
    )


def _mean(values: Sequence[float | None], name: str) -> float | None:
    """Mean of what is defined; of identity errors the largest."""
    # NaN is unequal to itself; saved as null it is None.
    defined = [value for value in values if value is not None and not math.isnan(value)]
    if not defined:
        return None
    return max(defined) if "identity" in name else sum(defined) / len(defined)


def shown(value: float | None, form: str) -> str:
    """A number, or a dash for what is undefined."""
    return "–" if value is None or math.isnan(value) else format(value, form).replace("-", "−")


def share_grid(content: Mapping[str, Any]) -> Grid:
    """The demonstrations with the largest shares, and the beginning of their text."""
    # An undefined share sorts as 0, below every real one.
    ranked = sorted(content["demonstrations"], key=lambda item: -(item["share"] or 0.0))[:_TOP]
    rows = []
    for item in ranked:
        text = " ".join(item["text"].split())
        beginning = text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
        figures = (shown(item["share"], ".3f"), shown(item["relative_norm"], ".3f"), str(item["tokens"]))
        rows.append((f"{item['number'] + 1}\n{beginning}", *figures))
    return Grid(
        name="shares",
        title=f"Demonstrations by their share in ΔW_ICL (the {len(ranked)} largest)",
        header=("", "share", "norm", "tokens"),
        rows=tuple(rows),
        notes=("share: projection on ΔW_ICL, summing to 1 over all demonstrations; norm: ‖ΔW_i‖ / ‖ΔW_ICL‖",),
    )


def print_synthetic(cases: Sequence[Case]) -> None:
    """Print the cases whose answer is known."""
    rows = [(f"{case.title}\n{case.source}", f"{case.error:.1e}", f"{case.size:.2f}") for case in cases]
    print_grid(
        Grid(
            name="synthetic",
            title="What must be equal, and what shows it",
            header=("", "largest difference", "size of the answer"),
            rows=tuple(rows),
        )
    )
