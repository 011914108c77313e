"""All finished runs of a sweep in one table, seed and rate chosen, means and standard errors over seeds.

Made from the runs' files alone: `sweep.parquet` and `sweep.csv` hold one row a run, `summary.csv` one row for each
model, task and number of shots.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lightning_icl.errors import OutputError
from lightning_icl.measures import Figure, column_figures, table_figures
from lightning_icl.report.figures import in_unit, shown
from lightning_icl.report.grid import Grid, csv_text
from lightning_icl.report.seeds import spread
from lightning_icl.report.terminal import print_grid
from lightning_icl.saved_json import read_json
from lightning_icl.sweeping.plan import RUN, SELECTION, SweepPlan

Row = dict[str, Any]


def collect(plan: SweepPlan) -> list[Row]:
    """One row for each finished run of the plan, in its order, the chosen ones marked.

    Raises:
        OutputError: no run is finished, or one cannot be read.
    """
    paths = [(unit, unit.run_folder(rate) / RUN) for unit in plan.units for rate in plan.settings.rates]
    contents = [(unit, read_json(path, "sweep_run")) for unit, path in paths if path.is_file()]
    rows = [row_of(content) for unit, content in contents if content["fingerprint"] == plan.fingerprint(unit)]
    if not rows:
        raise OutputError(f"{str(plan.out)!r} holds no finished run of this plan.")
    for _, group in groupby(rows, key=_setting):
        choose(list(group))
    return rows


def row_of(content: Mapping[str, Any]) -> Row:
    """The row of one run; None where a figure is undefined."""
    levels, selection = {"accuracy": content["accuracy"], **(content["comparison"] or {})}, content["selection"]
    held_out = selection["accuracy"] if selection["select"] == "heldout" else None
    return {
        **{name: content[name] for name in ("model", "task", "shots", "seed", "lr")},
        "demonstrations": content["demonstrations"]["count"],
        "queries": content["queries"] or None,
        **{figure.name: levels.get(figure.measure.level, {}).get(figure.key) for figure in table_figures()},
        "heldout_accuracy": held_out,
        "selected_by": selection["select"],
        "selected": False,
        "diverged": content["diverged"],
    }


def choose(rows: Sequence[Row]) -> None:
    """Mark the run whose selection accuracy is best; of equals the smaller rate, then the earlier seed.

    A run that diverged is never chosen. Under `heldout` nothing of the reported queries is looked at.
    """
    key = {"heldout": "heldout_accuracy", "paper": "accuracy_ft"}
    sound = [row for row in rows if row["diverged"] is None and row[key[row["selected_by"]]] is not None]
    if sound:
        best = min(sound, key=lambda row: (-row[key[row["selected_by"]]], row["lr"], row["seed"]))
        best["selected"] = True


def summarise(rows: Sequence[Row]) -> list[Row]:
    """For each model, task and number of shots: means and standard errors over seeds at the chosen rate.

    The standard error is the sample standard deviation over the square root of the number of seeds; undefined for one.
    """
    found = []
    for (model, task, shots), group in groupby(rows, key=_setting):
        members = list(group)
        chosen = next((row for row in members if row["selected"]), None)
        if chosen is None:
            continue
        same = [row for row in members if row["lr"] == chosen["lr"] and row["diverged"] is None]
        line = {"model": model, "task": task, "shots": shots, "selected_by": chosen["selected_by"]}
        line |= {"lr": chosen["lr"], "selected_seed": chosen["seed"], "seeds": len(same)}
        for name in (*(figure.name for figure in table_figures()), "heldout_accuracy"):
            over_seeds = spread([row[name] for row in same])
            line[f"{name}_mean"] = over_seeds and over_seeds.mean
            line[f"{name}_standard_error"] = over_seeds and over_seeds.standard_error
            line[f"{name}_selected"] = chosen[name]
        found.append(line)
    return found


def _setting(row: Row) -> tuple[str, str, int]:
    return row["model"], row["task"], row["shots"]


def write_tables(out: Path, rows: Sequence[Row], summary: Sequence[Row]) -> None:
    """Write `sweep.csv`, `sweep.parquet` and `summary.csv`."""
    (out / "sweep.csv").write_text(_csv(rows), encoding="utf-8")
    if summary:
        (out / "summary.csv").write_text(_csv(summary), encoding="utf-8")
    import pyarrow as pa
    from pyarrow import parquet

    text, whole = ("model", "task", "selected_by", "diverged"), ("shots", "seed", "demonstrations", "queries")
    kinds = dict.fromkeys(text, pa.string()) | dict.fromkeys(whole, pa.int64()) | {"selected": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in rows[0]])
    parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), out / "sweep.parquet")


def _csv(rows: Sequence[Row]) -> str:
    return csv_text([list(rows[0]), *(["" if cell is None else str(cell) for cell in row.values()] for row in rows)])


def print_summary(rows: Sequence[Row], summary: Sequence[Row]) -> None:
    """Means and standard errors over seeds, and what diverged."""
    print_grid(summary_grid(rows, summary))


def summary_grid(rows: Sequence[Row], summary: Sequence[Row]) -> Grid:
    """One row for each model, task and number of shots: means and standard errors over seeds at the chosen rate.

    Args:
        rows: all runs.
        summary: of `summarise`.
    """
    about = ("model", "shots", "lr", "seeds")
    figures = [figure for figure in column_figures() if figure.role == "main"]
    lost = sum(row["diverged"] is not None for row in rows)
    selections = dict.fromkeys(line["selected_by"] for line in summary)
    return Grid(
        name="summary",
        title="Mean over seeds at the selected rate (± standard error)",
        header=("", *about, *(figure.column for figure in figures)),
        rows=tuple(
            (line["task"], *(str(line[name]) for name in about), *(_cell(figure, line) for figure in figures))
            for line in summary
        ),
        notes=(
            *(f"seed and rate were selected by {SELECTION[by]}" for by in selections),
            *([f"{lost} of {len(rows)} runs diverged; sweep.csv says why"] if lost else []),
        ),
    )


def _cell(figure: Figure, line: Row) -> str:
    mean, error = (shown(figure, in_unit(figure, line[f"{figure.name}_{what}"])) for what in ("mean", "standard_error"))
    return mean if error == "–" else f"{mean}\n± {error}"
