"""The controls of a run beside the run itself: one row for each, the same figures for all."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_icl.measures import Figure, column_figures
from lightning_icl.report.figures import interval_in, interval_of, mean, shown, value_of
from lightning_icl.report.grid import Grid
from lightning_icl.report.tables import digits
from lightning_icl.results import TaskRun


def figure_means(results: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The figures that have columns, each the mean over the results that have it."""
    return [mean([value_of(figure, result) for result in results]) for figure in column_figures()]


def controls_of(run: TaskRun) -> Mapping[str, Mapping[str, Any]]:
    """The controls of one task by name."""
    controls: Mapping[str, Mapping[str, Any]] = run.results.get("controls") or {}
    return controls


def control_names(runs: Sequence[TaskRun]) -> list[str]:
    """The controls that any of the tasks has, in order of first use."""
    return list(dict.fromkeys(name for run in runs for name in controls_of(run)))


def mean_of(runs: Sequence[TaskRun]) -> str:
    """What a title adds where cells are means over several tasks."""
    return "" if len(runs) == 1 else f", means of {len(runs)} tasks"


def fewer_tasks(count: int, whole: int) -> str:
    """Small print of a cell or a name that not all tasks have."""
    return f"\n{count} of {whole} tasks" if count < whole else ""


def controls_grid(runs: Sequence[TaskRun]) -> Grid | None:
    """The run and its controls; None where no task has a control.

    A control's figure is the mean over the tasks in which both it and the run have one; where these are fewer than the
    run's, the cell says how many they are.
    """
    names = control_names(runs)
    if not names:
        return None
    rows = [("this run", *map(shown, column_figures(), figure_means([run.results for run in runs])))]
    # Each cell counts its own tasks: a control may be impossible for one task and undefined for another.
    rows += [(_name(name, runs), *(_cell(figure, name, runs) for figure in column_figures())) for name in names]
    return Grid(
        name="controls",
        title=f"The same figures under each control{mean_of(runs)}",
        header=("", *(figure.column for figure in column_figures())),
        rows=tuple(rows),
        notes=tuple(_notes(names, runs)),
        numbers=(("task", "control", "figure", "value", "low", "high"), *_numbers(runs)),
    )


def _name(name: str, runs: Sequence[TaskRun]) -> str:
    """A control's name, what it does, and how many tasks have it where not all do."""
    entries = [controls_of(run)[name] for run in runs if name in controls_of(run)]
    title = str(entries[0].get("title") or name)
    lines = [name] if title == name else [name, title]
    return "\n".join(lines) + fewer_tasks(len(entries), len(runs))


def _cell(figure: Figure, name: str, runs: Sequence[TaskRun]) -> str:
    having = [run for run in runs if name in controls_of(run)]
    # Only tasks in which the run itself has the figure, or the two means would be over different tasks.
    own = [run for run in having if value_of(figure, run.results) is not None]
    values = [value for run in own if (value := value_of(figure, controls_of(run)[name])) is not None]
    return shown(figure, mean(values)) + (fewer_tasks(len(values), len(own)) if values else "")


def _notes(names: Sequence[str], runs: Sequence[TaskRun]) -> Iterator[str]:
    """What the controls say of themselves, once for all tasks that say the same."""
    for name in names:
        tasks: dict[str, list[str]] = {}
        for run in runs:
            if note := (controls_of(run).get(name) or {}).get("note"):
                # The same note of several tasks is printed once, behind their names.
                tasks.setdefault(str(note).rstrip("."), []).append(run.task)
        for note, saying in tasks.items():
            yield f"{name}: {note}" + ("" if len(saying) == len(runs) else f" ({', '.join(saying)})")


def _numbers(runs: Sequence[TaskRun]) -> Iterator[tuple[str, ...]]:
    """One line for each task, control and figure, unrounded, in percent where tables are."""
    for run in runs:
        intervals = run.results.get("contrast_intervals") or {}
        for figure in column_figures():
            # A pair of None fills the two columns of ends.
            ends = interval_of(figure, run.results) or (None, None)
            yield (run.task, "this run", figure.path, *map(digits, (value_of(figure, run.results), *ends)))
        for name, control in controls_of(run).items():
            for figure in column_figures():
                ends = interval_in(figure, intervals.get(name) or {}) or (None, None)
                yield (run.task, name, figure.path, *map(digits, (value_of(figure, control), *ends)))
