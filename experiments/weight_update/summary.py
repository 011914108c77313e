"""What the finished parts of the experiment say: tables over shots, and a picture.

python -m experiments.weight_update.summary runs/weight-update-builtin

At any time, from the files of the parts alone. `summary.csv` has one row for each condition of each part,
`matrices.csv` one for each part, `rungs.png` shows the rungs over shots. Tables are in Markdown. They and the picture
are of the tasks and seeds that have every number of shots.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import StatisticsError, correlation
from typing import Any

from lightning_icl.report.figures import mean
from lightning_icl.report.ladder import TITLES, WEIGHT_UPDATE

Row = Mapping[str, Any]
ABOUT = ("model", "task", "scope", "shots", "used", "seed", "queries")
FIGURES = ("accuracy", "agreement", "kl", "answer_kl", "margin_correlation", "rec2ftp", "simaou_icl", "simaou_ft")
MATRICES: Mapping[str, Callable[[Row], Any]] = {
    "ICL·FT": lambda content: content["matrices_per_head"]["cosine"],
    "ICL·Gaussian": lambda content: content["matrices_per_head"]["cosine_of_gaussian"],
    "flipped ICL·FT": lambda content: _control(content, "labels-flipped", "cosine"),
    "flipped ICL·ICL": lambda content: _control(content, "labels-flipped", "cosine_with_icl"),
    "flipped FT·FT": lambda content: _control(content, "labels-flipped", "cosine_with_ft"),
    "untrained ICL·FT": lambda content: _control(content, "untrained", "cosine"),
    "untrained ICL·ICL": lambda content: _control(content, "untrained", "cosine_with_icl"),
    "untrained FT·FT": lambda content: _control(content, "untrained", "cosine_with_ft"),
}
"""Cosines of updates as matrices, by layer and head."""


def _control(content: Row, name: str, figure: str) -> list[list[float | None]]:
    made: list[list[float | None]] = content["matrix_controls"].get(name, {}).get(figure, [])
    return made


def contents(out: Path) -> Iterator[tuple[dict[str, Any], Row]]:
    """What each finished part is about, and all it says."""
    for path in sorted(out.glob(f"*/*/{WEIGHT_UPDATE}")):
        content = json.loads(path.read_text(encoding="utf-8"))
        about = {"model": content["model"]["name"], "task": content["task"]["name"], "scope": content["scope"]}
        names = (("shots", "requested"), ("used", "count"), ("seed", "seed"))
        about |= {key: content["demonstrations"][name] for key, name in names}
        yield about | {"queries": content["queries"]["count"]}, content


def condition_rows(parts: Iterable[tuple[Row, Row]]) -> list[Row]:
    """One row for each condition of each part."""
    return [
        {**about, "condition": condition, **{name: figures[name] for name in FIGURES}}
        for about, content in parts
        for condition, figures in content["conditions"].items()
    ]


def matrix_rows(parts: Iterable[tuple[Row, Row]]) -> list[Row]:
    """One row for each part: mean cosines over layers and heads, and how alike the shares are."""
    return [
        {**about, **{name: mean(_flat(of(content))) for name, of in MATRICES.items()}, "shares": _shares(content)}
        for about, content in parts
    ]


def _flat(table: Sequence[Sequence[float | None]]) -> list[float | None]:
    return [value for row in table for value in row]


def _shares(content: Row) -> float | None:
    """Correlation over demonstrations of their mean shares in the two updates."""
    sides = content["shares_per_layer"]
    if sides["ft"] is None:
        return None
    one, other = ([mean(of_layers) for of_layers in zip(*sides[name], strict=True)] for name in ("icl", "ft"))
    try:
        return correlation(one, other)  # type: ignore[arg-type]
    except (StatisticsError, TypeError):  # one demonstration, or an update of nothing
        return None


def comparable(rows: Sequence[Row]) -> list[Row]:
    """Rows of the tasks and seeds of each scope that have all of its numbers of shots; all rows where none has.

    Otherwise a step from 4 to 16 shots would be one to other tasks, where prompts of some no longer fit.
    """
    kept: list[Row] = []
    for scope in dict.fromkeys(row["scope"] for row in rows):
        own = [row for row in rows if row["scope"] == scope]
        shots = {row["shots"] for row in own}
        made: dict[tuple[str, int], set[int]] = {}
        for row in own:
            made.setdefault((row["task"], row["seed"]), set()).add(row["shots"])
        kept += [row for row in own if made[row["task"], row["seed"]] == shots] or own
    return kept


def means_over_parts(rows: Sequence[Row], lines: Mapping[str, Callable[[Row], Any]]) -> dict[str, dict[int, Any]]:
    """By line and shots the mean over tasks and seeds."""
    shots = sorted({row["shots"] for row in rows})
    return {
        name: {count: mean([value(row) for row in rows if row["shots"] == count]) for count in shots}
        for name, value in lines.items()
    }


def curves(rows: Sequence[Row], scope: str, figure: str) -> dict[str, dict[int, Any]]:
    """By condition and shots the mean of a figure over tasks and seeds."""
    own = [row for row in rows if row["scope"] == scope]
    names = [name for name in TITLES if any(row["condition"] == name for row in own)]
    return {
        name: means_over_parts([row for row in own if row["condition"] == name], {name: lambda row: row[figure]})[name]
        for name in names
    }


def table(title: str, lines: Mapping[str, Mapping[int, Any]], form: str, counts: Mapping[int, int]) -> str:
    """Markdown; the last row says how many parts each mean is of."""
    shots = list(counts)
    text = [f"{title}\n", "| shots | " + " | ".join(map(str, shots)) + " |", "|---" * (len(shots) + 1) + "|"]
    for name, own in lines.items():
        cells = ["–" if own.get(count) is None else format(own[count], form).removesuffix("%") for count in shots]
        text.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join([*text, "| tasks × seeds | " + " | ".join(map(str, counts.values())) + " |\n"])


def summarise(out: Path) -> str:
    """Write the files, and give the tables."""
    parts = list(contents(out))
    if not parts:
        return f"{out} holds no finished part."
    rows, matrices = condition_rows(parts), matrix_rows(parts)
    _write(out / "summary.csv", (*ABOUT, "condition", *FIGURES), rows)
    _write(out / "matrices.csv", (*ABOUT, *MATRICES, "shares"), matrices)
    everything = len(matrices)
    rows, matrices = comparable(rows), comparable(matrices)
    draw(rows, out / "rungs.png")
    left_out = everything - len(matrices)
    tables = [f"Left out: {left_out} parts of tasks and seeds without all numbers of shots.\n"] if left_out else []
    for scope in dict.fromkeys(row["scope"] for row in rows):
        counts = _counts([row for row in rows if row["scope"] == scope and row["condition"] == "icl"])
        for figure, title, form in (
            ("kl", "KL from in-context learning, nats", ".3g"),
            ("margin_correlation", "correlation of margins with in-context learning's", ".2f"),
            ("accuracy", "accuracy, %", ".1%"),
        ):
            tables.append(table(f"{scope}: {title}", curves(rows, scope, figure), form, counts))
        own = [row for row in matrices if row["scope"] == scope]
        lines = means_over_parts(own, {name: lambda row, n=name: row[n] for name in (*MATRICES, "shares")})  # type: ignore[misc]
        tables.append(table(f"{scope}: cosines of updates as matrices; correlation of shares", lines, ".3f", counts))
    return "\n".join(tables)


def _counts(rows: Sequence[Row]) -> dict[int, int]:
    return {count: sum(row["shots"] == count for row in rows) for count in sorted({row["shots"] for row in rows})}


def _write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: Sequence[Row], path: Path) -> None:
    """The rungs over shots: a row of pictures for each scope, means over tasks and seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scopes = list(dict.fromkeys(row["scope"] for row in rows))
    shown = (("kl", "KL from ICL, nats"), ("margin_correlation", "correlation of margins"), ("accuracy", "accuracy"))
    figure, axes = plt.subplots(len(scopes), 3, figsize=(11, 3.2 * len(scopes)), squeeze=False, layout="constrained")
    for scope, row_of_axes in zip(scopes, axes, strict=True):
        for axis, (name, label) in zip(row_of_axes, shown, strict=True):
            for number, (condition, own) in enumerate(curves(rows, scope, name).items()):
                values = [float("nan") if value is None else value for value in own.values()]
                if name != "kl" or condition != "icl":
                    axis.plot(list(own), values, marker="o", markersize=3, label=condition, color=f"C{number}")
            axis.set(title=f"scope {scope}", xlabel="shots", ylabel=label, xscale="log")
            axis.set_xticks(sorted({row["shots"] for row in rows}), minor=False)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
        row_of_axes[0].set_yscale("log")
        row_of_axes[2].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the experiment")
    print(summarise(parser.parse_args(words).out))


if __name__ == "__main__":
    main()
