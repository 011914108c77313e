"""The two updates of every head as tables: how alike they are, beside controls, and their shares by demonstration."""

from collections.abc import Mapping, Sequence
from statistics import StatisticsError, correlation
from typing import Any

from lightning_icl.report.figures import mean
from lightning_icl.report.grid import Grid

Ladder = Mapping[str, Any]
"""Content of `weight_update.json`."""
MATRICES: Sequence[tuple[str, str, str]] = (
    ("cosine", "cosine", ".3f"),
    ("cosine_of_gaussian", "with a\nGaussian", ".3f"),
    ("norm_ratio", "norms\nFT : ICL", ".3g"),
    ("left_overlap", "overlap,\nwritten", ".3f"),
    ("right_overlap", "overlap,\nread", ".3f"),
    ("icl_rank", "rank\nICL", ".1f"),
    ("ft_rank", "rank\nFT", ".1f"),
)
"""Name, heading and format of each column about matrices."""
CONTROLS: Sequence[tuple[str, str]] = (("labels-flipped", "flipped\nlabels"), ("untrained", "untrained\nmodel"))
"""Name and heading of each control."""
_PAIRS: Sequence[tuple[str, str]] = (
    ("cosine", "ICL·FT"),
    ("cosine_with_icl", "ICL·true ICL"),
    ("cosine_with_ft", "FT·true FT"),
)


def matrix_grids(ladder: Ladder) -> list[Grid]:
    """The affine rung's matrices beside fine-tuning's, controls, and shares; the last two where the file has them."""
    controls = [_controls(ladder)] if ladder.get("matrix_controls") else []
    return [_matrices(ladder), *controls, *([_shares(ladder)] if ladder.get("shares_per_layer") else [])]


def _matrices(ladder: Ladder) -> Grid:
    """Means over heads."""
    figures = ladder["matrices_per_head"]
    means = {name: [mean(of_heads) for of_heads in figures[name]] for name, _, _ in MATRICES}
    return Grid(
        name=f"ladder_matrices_{ladder['task']['name']}_{ladder['scope']}",
        title=f"The affine rung's matrix of each head beside fine-tuning's, {ladder['task']['name']}",
        header=("layer", *(heading for _, heading, _ in MATRICES)),
        rows=tuple(
            (str(layer), *(shown(means[name][layer], form) for name, _, form in MATRICES))
            for layer in range(len(figures["cosine"]))
        ),
        notes=(
            "Both are first derivatives of a softmax head's output: of attention to the demonstrations, and what "
            "fine-tuning changes in attention to zero-shot prompts; means over heads",
            "Overlap: mean squared cosine of the principal angles of their leading singular subspaces; "
            f"random ones have {shown(ladder['overlap_of_random'], '.2f')}. Rank: effective",
        ),
    )


def _controls(ladder: Ladder) -> Grid:
    """Cosines under other labels and in a model that was never trained, means over heads."""
    made = {name: own for name, own in ladder["matrix_controls"].items() if "left_out" not in own}
    columns = [("true:\nICL·FT", ladder["matrices_per_head"]["cosine"])]
    for name, heading in CONTROLS:
        columns += [(f"{heading}:\n{pair}", made[name][figure]) for figure, pair in _PAIRS if name in made]
    left_out = {name: own["left_out"] for name, own in ladder["matrix_controls"].items() if name not in made}
    return Grid(
        name=f"ladder_matrix_controls_{ladder['task']['name']}_{ladder['scope']}",
        title=f"Cosines of the two updates, true and under controls, {ladder['task']['name']}",
        header=("layer", *(heading for heading, _ in columns)),
        rows=tuple(
            (str(layer), *(shown(mean(of_heads), ".3f") for of_heads in row))
            for layer, row in enumerate(zip(*(values for _, values in columns), strict=False))
        ),
        notes=(
            "Flipped labels: both updates made from the same demonstrations with the next answer; untrained: from the "
            "true demonstrations by a model of fresh weights. Beside each other, and beside the true ones",
            *(f"{name} is left out: {reason.rstrip('.')}" for name, reason in left_out.items()),
        ),
    )


def _shares(ladder: Ladder) -> Grid:
    """One row for each demonstration, means over layers."""
    sides = {name: own for name, own in ladder["shares_per_layer"].items() if own is not None}
    means = {name: [mean(of_layers) for of_layers in zip(*own, strict=False)] for name, own in sides.items()}
    # Files of an earlier version lack labels, so columns may end early.
    chosen = zip(
        *(ladder["demonstrations"].get(key, ()) for key in ("indices", "labels")), *means.values(), strict=False
    )
    return Grid(
        name=f"ladder_shares_{ladder['task']['name']}_{ladder['scope']}",
        title=f"Share of each demonstration in the two updates, {ladder['task']['name']}",
        header=("demonstration", "label", *(name.upper() for name in means)),
        rows=tuple(
            (f"{number} (row {row})", str(label), *(shown(share, ".3f") for share in own))
            for number, (row, label, *own) in enumerate(chosen, 1)
        ),
        notes=(
            "Projection of a demonstration's part on the whole update, summing to 1, means over layers: of the affine "
            "rung the part of its tokens, of fine-tuning what its step changes",
            *_alike(means),
        ),
    )


def _alike(means: Mapping[str, Sequence[float | None]]) -> tuple[str, ...]:
    """How far the two sides agree about the demonstrations."""
    one, other = means.get("icl", ()), means.get("ft", ())
    # A correlation needs pairs in which both sides are defined.
    pairs = [(x, y) for x, y in zip(one, other, strict=False) if x is not None and y is not None]
    try:
        return (f"Correlation of the two over demonstrations: {shown(correlation(*zip(*pairs, strict=True)), '.2f')}",)
    except (StatisticsError, TypeError):  # too few, or all alike
        return ()


def shown(value: float | None, form: str) -> str:
    """A number as text, a dash for what is undefined.

    >>> shown(0.125, ".1%"), shown(-0.5, ".3f"), shown(None, ".3g")
    ('12.5', '−0.500', '–')
    """
    # Minus sign and not hyphen, as everywhere in tables.
    return "–" if value is None else format(value, form).removesuffix("%").replace("-", "−")
