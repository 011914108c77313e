"""Does a run repeat a published one, and how far is each of its figures from the published figure?"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose

from lightning_icl.errors import OutputError
from lightning_icl.measures import Figure, measures, table_figures
from lightning_icl.published import published_layers, published_size, tables
from lightning_icl.report.figures import shown, signed, value_of
from lightning_icl.report.grid import Grid
from lightning_icl.report.tables import digits
from lightning_icl.results import TaskRun

# Validation rows of each task in the published runs (AGNews: the first 2,000, as the paper's program takes them).
_QUERIES = {"sst2": 872, "sst5": 1101, "mr": 1066, "subj": 2000, "agnews": 2000, "cb": 56}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One published figure and ours."""

    task: str
    figure: Figure
    ours: float | None
    published: float
    tolerance: float

    @property
    def difference(self) -> float | None:
        """Ours minus published; None where ours is undefined."""
        return None if self.ours is None else self.ours - self.published

    @property
    def within(self) -> bool:
        """Whether ours is there and near enough; a figure exactly at the tolerance is."""
        # A hair more than the tolerance, since a difference of decimals is rarely exact in binary.
        return self.difference is not None and abs(self.difference) <= self.tolerance + 1e-9


def not_repeated(run: TaskRun) -> str | None:
    """Why a run does not repeat a published one; None where model, task, seed and learning rate are the paper's."""
    size = published_size(str(run.results["model"]["name"]))
    if size is None:
        return f"model {run.results['model']['name']} is none of the paper's (fairseq-dense-1.3B and -2.7B)"
    published = tables()[size]
    if run.task not in published["seed"]:
        return f"task {run.task} is none of the paper's ({', '.join(published['seed'])})"
    seed, rate = (run.results.get("demonstrations") or {}).get("seed"), (run.results.get("finetune") or {}).get("lr")
    if seed != published["seed"][run.task]:
        return f"seed {seed}, and the paper's is {published['seed'][run.task]}"
    # Relative, as rates span orders of magnitude.
    if rate is None or not isclose(rate, published["learning_rate"][run.task], rel_tol=1e-6):
        return f"learning rate {rate}, and the paper's is {published['learning_rate'][run.task]}"
    return None


def repeated_size(run: TaskRun) -> str | None:
    """The published model size that a run repeats, or None."""
    return None if not_repeated(run) else published_size(str(run.results["model"]["name"]))


def tolerance(figure: Figure, run: TaskRun) -> float:
    """How far a figure may be from the published one, in the units it is shown in."""
    count = (run.results.get(figure.measure.level) or {}).get(figure.count)
    # Rec2FTP is a share of few queries: one of them more or less is no deviation.
    return max(figure.measure.tolerance, 100 / count) if count else figure.measure.tolerance


def tolerances() -> str:
    """All tolerances in words."""
    points = {True: " percentage points", False: ""}
    parts = [f"{measure.name} {measure.tolerance:g}{points[measure.percent]}" for measure in measures()]
    shares = [
        f"{figure.measure.name} one of the queries {figure.counts} where that is more"
        for figure in table_figures()
        if figure.count
    ]
    return f"Tolerance: {', '.join((*parts, *shares))}"


def check(runs: Sequence[TaskRun]) -> list[Cell]:
    """Every published figure of the tasks that repeat a published run, with ours."""
    cells = []
    for run in runs:
        size = repeated_size(run)
        for figure in table_figures() if size else ():
            # `or ""` for mypy: without a size the loop does not run.
            published = tables()[size or ""][figure.name].get(run.task) if figure.published else None
            if published is not None:
                ours = value_of(figure, run.results)
                cells.append(
                    Cell(task=run.task, figure=figure, ours=ours, published=published, tolerance=tolerance(figure, run))
                )
    return cells


def deviations(run: TaskRun) -> list[str]:
    """What a repetition did otherwise than the published run, beyond the settings that make it one."""
    differences = []
    count, token = (run.results.get("queries") or {}).get("count"), run.results["task"].get("probe_token")
    if count != _QUERIES[run.task]:
        differences.append(f"{run.task}: {count} queries, and the published run had {_QUERIES[run.task]}")
    if token == "prompt":
        differences.append(f"{run.task}: looked at the prompt's last token; the paper's program looks at the answer's")
    return differences


def layer_distance(run: TaskRun) -> float | None:
    """Mean over layers of how far SimAOU is from Deutch et al.'s curve; None where there is none to compare with."""
    ours = (run.results.get("sim_aou") or {}).get("per_layer")
    published = published_layers(run.task, "sim_aou") if repeated_size(run) == "1.3B" else None
    if not ours or not published or len(ours) != len(published):
        return None
    apart = [abs(own - other) for own, other in zip(ours, published, strict=True) if own is not None]
    return sum(apart) / len(apart) if apart else None


def check_grid(runs: Sequence[TaskRun]) -> Grid:
    """The check as a table: each figure, ours, published, difference, and whether it is within tolerance.

    Raises:
        OutputError: no task of the run repeats a published run.
    """
    cells = check(runs)
    reasons = [f"{run.task}: not a repetition: {reason}" for run in runs if (reason := not_repeated(run))]
    if not cells:
        # With the command that would repeat one: the settings are too many to guess.
        raise OutputError(
            f"No task repeats a published run ({'; '.join(reasons)}). Repeat one with: lightning-icl compare --model "
            "KoboldAI/fairseq-dense-1.3B --allow-pickle --task paper --seed published --lr published --probe-token "
            "answer"
        )
    rows = [
        (
            cell.task,
            _name(cell.figure),
            shown(cell.figure, cell.ours),
            shown(cell.figure, cell.published),
            signed(cell.figure, cell.difference),
            f"{cell.tolerance:.3g}",
            "yes" if cell.within else "no",
        )
        for cell in cells
    ]
    repeated = [run for run in runs if not not_repeated(run)]
    layers = [
        f"{run.task}: SimAOU is {apart:.3f} from the curve of Deutch et al., mean over layers"
        for run in repeated
        if (apart := layer_distance(run)) is not None
    ]
    return Grid(
        name="check",
        title=f"{sum(cell.within for cell in cells)} of {len(cells)} published figures are within tolerance",
        header=("task", "figure", "ours", "published", "difference", "tolerance", "within"),
        rows=tuple(rows),
        notes=(tolerances(), *reasons, *layers, *(note for run in repeated for note in deviations(run))),
        numbers=(("task", "quantity", "ours", "published", "difference", "tolerance", "within"), *map(_numbers, cells)),
    )


def _name(figure: Figure) -> str:
    return f"{figure.measure.name}, {figure.label}" if figure.indented else figure.label


def _numbers(cell: Cell) -> tuple[str, ...]:
    figures = map(digits, (cell.ours, cell.published, cell.difference, cell.tolerance))
    return (cell.task, cell.figure.path, *figures, "yes" if cell.within else "no")
