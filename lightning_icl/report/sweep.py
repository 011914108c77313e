"""The runs of a sweep as rows: seed and rate chosen, means and standard errors over seeds, figures over rates.

Made from the runs' files alone, so that a sweep can be shown again without a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from lightning_icl.errors import OutputError
from lightning_icl.measures import FIGURES, Figure, column_figures, table_figures
from lightning_icl.report.figures import in_unit, mean, shown
from lightning_icl.report.grid import Grid
from lightning_icl.report.seeds import spread
from lightning_icl.saved_json import read_json

PLAN = "plan.json"
RUN = "run.json"
SELECTION = {
    "heldout": "fine-tuned accuracy on rows held out of the training split",
    "paper": "fine-tuned accuracy on the reported queries, as the paper did",
}
# Accuracies that no fine-tuning changes.
_WITHOUT = ("accuracy_icl", "accuracy_zsl")
Row = dict[str, Any]
"""One run: its setting, its figures by name as saved, and whether it is the chosen one."""


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds a sweep."""
    return (folder / PLAN).is_file()


def read_sweep(folder: Path) -> list[Row]:
    """The finished runs of a sweep's folder, the chosen ones marked; of one model and task those of the newest plan.

    Raises:
        OutputError: there is none, or one cannot be read.
    """
    # Unfinished runs are made in hidden folders.
    paths = [path for path in folder.rglob(RUN) if not _hidden(path.relative_to(folder))]
    newest: dict[tuple[str, str], str] = {}
    # By time, so that the newest plan wins where two disagree.
    contents = [read_json(path, "sweep_run") for path in sorted(paths, key=lambda path: path.stat().st_mtime)]
    for content in contents:
        newest[content["model"], content["task"]] = content["fingerprint"]
    # Rows of older fingerprints were measured on other data or weights.
    rows = [row_of(run) for run in contents if run["fingerprint"] == newest[run["model"], run["task"]]]
    if not rows:
        raise OutputError(f"{str(folder)!r} holds a sweep of which no run is finished.")
    rows.sort(key=lambda row: (*setting_of(row), row["seed"], row["lr"]))
    return chosen(rows)


def _hidden(path: Path) -> bool:
    """Whether it stands in a place where a run is being made."""
    return any(part.startswith(".") for part in path.parts)


def chosen(rows: list[Row]) -> list[Row]:
    """Rows that stand by their setting, in each of which one run is marked."""
    for _, group in groupby(rows, key=setting_of):
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
    # Diverged runs have no accuracy and are never chosen.
    sound = [row for row in rows if row["diverged"] is None and row[key[row["selected_by"]]] is not None]
    if sound:
        best = min(sound, key=lambda row: (-row[key[row["selected_by"]]], row["lr"], row["seed"]))
        best["selected"] = True


def summarise(rows: Sequence[Row]) -> list[Row]:
    """For each model, task and number of shots: means and standard errors over seeds at the chosen rate.

    The standard error is the sample standard deviation over the square root of the number of seeds; undefined for one.
    """
    lines = []
    for (model, task, shots), group in groupby(rows, key=setting_of):
        members = list(group)
        selected = next((row for row in members if row["selected"]), None)
        if selected is None:
            continue
        # Means over seeds at that rate alone: other rates are other settings.
        same = [row for row in members if row["lr"] == selected["lr"] and row["diverged"] is None]
        line = {"model": model, "task": task, "shots": shots, "selected_by": selected["selected_by"]}
        line |= {"lr": selected["lr"], "selected_seed": selected["seed"], "seeds": len(same)}
        for name in (*(figure.name for figure in table_figures()), "heldout_accuracy"):
            over_seeds = spread([row[name] for row in same])
            # `and` keeps None where there is no spread.
            line[f"{name}_mean"] = over_seeds and over_seeds.mean
            line[f"{name}_standard_error"] = over_seeds and over_seeds.standard_error
            line[f"{name}_selected"] = selected[name]
        lines.append(line)
    return lines


def setting_of(row: Row) -> tuple[str, str, int]:
    """Model, task and number of shots."""
    return row["model"], row["task"], row["shots"]


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
    parts = (f"{figure.name}_mean", f"{figure.name}_standard_error")
    average, error = (shown(figure, in_unit(figure, line[part])) for part in parts)
    return average if error == "–" else f"{average}\n± {error}"


@dataclass(frozen=True, kw_only=True)
class OverRates:
    """A figure of one setting over its learning rates, in the unit it is shown in."""

    figure: Figure
    rates: tuple[float, ...]
    seeds: tuple[tuple[float, float], ...]
    """Rate and value of every run that has one."""
    means: tuple[float | None, ...]
    """Over seeds, by rate."""
    chosen: float | None
    """The rate chosen."""
    levels: Mapping[str, float]
    """What does not depend on the rate, by name: accuracies without fine-tuning."""


def settings_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each setting, by what it is called."""
    groups = {setting: list(group) for setting, group in groupby(rows, key=setting_of)}
    models = len({model for model, _, _ in groups})
    return {
        f"{task}, {shots} shots{f', {model}' if models > 1 else ''}": own
        for (model, task, shots), own in groups.items()
    }


def over_rates(figure: Figure, rows: Sequence[Row]) -> OverRates:
    """A figure of the runs of one setting."""
    sound = [row for row in rows if row["diverged"] is None]
    rates = tuple(sorted({row["lr"] for row in rows}))
    values = [(row["lr"], value) for row in sound if (value := in_unit(figure, row[figure.name])) is not None]
    means = tuple(mean([value for other, value in values if other == rate]) for rate in rates)
    levels = {}
    for other in FIGURES if figure.name == "accuracy_ft" else ():
        # Accuracies without fine-tuning do not depend on the rate and are drawn as levels.
        level = mean([in_unit(other, row[other.name]) for row in sound]) if other.name in _WITHOUT else None
        if level is not None:
            levels[other.label] = level
    best = next((row["lr"] for row in rows if row["selected"]), None)
    return OverRates(figure=figure, rates=rates, seeds=tuple(values), means=means, chosen=best, levels=levels)


def rate_figures() -> list[Figure]:
    """Figures that depend on the rate and have a column: the fine-tuned accuracy, and what compares ICL with it."""
    return [figure for figure in column_figures() if figure.name not in _WITHOUT]
