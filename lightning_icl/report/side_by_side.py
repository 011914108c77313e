"""Several models side by side, each a mean over seeds where it ran with several: size against what was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning_icl.measures import column_figures, compared_levels
from lightning_icl.report.controls import figure_means
from lightning_icl.report.grid import Grid
from lightning_icl.report.seeds import Run, Spread, spread, spread_digits, spread_shown
from lightning_icl.report.tables import model_name
from lightning_icl.results import TaskRun


@dataclass(frozen=True, kw_only=True)
class SizePoint:
    """One model in a chart of sizes."""

    label: str
    parameters: int
    spread: Spread


def shared_tasks(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Tasks that every run has, in the order of the first; none where they share none."""
    runs = [run for group in groups for run in group]
    # Shared by all: a mean over other tasks would compare other questions.
    return [
        name for name in (task.task for task in runs[0]) if all(name in {task.task for task in run} for run in runs)
    ]


def by_size(groups: Sequence[Sequence[Run]]) -> list[Sequence[Run]]:
    """Smallest model first."""
    return sorted(groups, key=lambda group: _size(group[0]))


def side_grid(groups: Sequence[Sequence[Run]]) -> Grid:
    """One row for each model, smallest first: its size, and means over the tasks that all share.

    Args:
        groups: runs of one model and one setting, which differ in the seed alone.
    """
    shared = shared_tasks(groups)
    seeded = any(len(group) > 1 for group in groups)
    headings = [figure.column for figure in column_figures()]
    rows: list[tuple[str, ...]] = []
    lines: list[tuple[str, ...]] = []
    for group in by_size(groups):
        name, size, columns = _label(group, groups), _size(group[0]), _columns(group, shared)
        cells = map(spread_shown, column_figures(), columns)
        # Models of unknown size come last, since 0 sorts first.
        about = [
            f"{size:,}" if size else "–",
            f"{_queries(group[0], shared):,}",
            *([str(len(group))] if seeded else []),
        ]
        rows.append((name, *about, *cells))
        for figure, values in zip(column_figures(), columns, strict=True):
            lines.append((name, str(size or ""), figure.path, *spread_digits(values)))
    over = (
        f"means of the tasks that all share ({', '.join(shared)})"
        if shared
        else "no task is shared, so each row is the mean of its own tasks"
    )
    return Grid(
        name="side_by_side",
        title=f"Models side by side, {over}{', ± standard error over seeds' if seeded else ''}",
        header=("", "parameters", "queries", *(["seeds"] if seeded else []), *headings),
        rows=tuple(rows),
        notes=tuple(_warnings(groups, shared)),
        numbers=(("model", "parameters", "quantity", "mean", "standard_error", "seeds"), *lines),
    )


def _warnings(groups: Sequence[Sequence[Run]], shared: Sequence[str]) -> Iterator[str]:
    """What keeps the rows from being compared like with like; tasks of which the same is to be said together."""
    tasks_of: dict[str, list[str]] = {}
    for name in shared:
        tasks = [task for group in groups for run in group for task in run if task.task == name]
        for what in ("queries", "demonstrations"):
            values = [(task.results.get(what) or {}).get("count") for task in tasks]
            counts = sorted({value for value in values if value is not None})
            if len(counts) > 1:
                note = f"the runs differ in their number of {what} ({', '.join(map(str, counts))})"
                tasks_of.setdefault(note, []).append(name)
    yield from (f"{', '.join(names)}: {note}" for note, names in tasks_of.items())


def _counted(run: Run, shared: Sequence[str]) -> list[TaskRun]:
    return [task for task in run if not shared or task.task in shared]


def _queries(run: Run, shared: Sequence[str]) -> int:
    return sum((task.results.get("queries") or {}).get("count") or 0 for task in _counted(run, shared))


def _columns(group: Sequence[Run], shared: Sequence[str]) -> list[list[float | None]]:
    """For each figure that has a column the value of each seed, means over tasks."""
    by_seed = [figure_means([task.results for task in _counted(run, shared)]) for run in group]
    return [list(values) for values in zip(*by_seed, strict=True)]


def _size(run: Run) -> int:
    return int(run[0].results["model"].get("parameters") or 0)


def _label(group: Sequence[Run], groups: Sequence[Sequence[Run]]) -> str:
    """The model's name, with its run's folder where two rows are of one model."""
    name = model_name(group[0])
    # Two rows of one model are told apart by their folders.
    twice = sum(model_name(other[0]) == name for other in groups) > 1
    return f"{name} ({run_name(group[0])})" if twice else name


def run_name(run: Sequence[TaskRun]) -> str:
    """Name of the run's folder."""
    return run[0].folder.resolve().parent.name


def size_points(groups: Sequence[Sequence[Run]]) -> dict[str, list[SizePoint]]:
    """For each figure that compares ICL with FT, every model that says its size and has a value."""
    shared, charts = shared_tasks(groups), {}
    for number, figure in enumerate(column_figures()):
        points = [
            SizePoint(label=_label(group, groups), parameters=_size(group[0]), spread=over_seeds)
            for group in by_size(groups)
            if _size(group[0]) and (over_seeds := spread(_columns(group, shared)[number]))
        ]
        # Accuracies are compared by figure, but only similarities by size.
        if figure.measure.level in compared_levels() and points:
            charts[figure.column] = points
    return charts
