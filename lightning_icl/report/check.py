"""Does a run repeat a published one, and how far is each of its figures from the published figure?"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose

from lightning_icl.errors import OutputError
from lightning_icl.published import published_layers, published_size, tables
from lightning_icl.report.grid import Grid
from lightning_icl.report.tables import QUANTITIES, Quantity, shown, signed, value_of
from lightning_icl.results import TaskRun

ACCURACY_POINTS = 2.0
REC2FTP_POINTS = 5.0
SIMILARITY = 0.02
TOLERANCE = (
    f"Within tolerance: accuracy to {ACCURACY_POINTS:g} percentage points; Rec2FTP to {REC2FTP_POINTS:g} points, or to "
    f"one of the queries that fine-tuning corrects where that is more; similarities to {SIMILARITY:g}"
)
# Validation rows of each task in the published runs (AGNews: the first 2,000, as the paper's program takes them).
_QUERIES = {"sst2": 872, "sst5": 1101, "mr": 1066, "subj": 2000, "agnews": 2000, "cb": 56}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One published figure and ours."""

    task: str
    quantity: Quantity
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
        return self.difference is not None and abs(self.difference) <= self.tolerance + 1e-9


def not_repeated(run: TaskRun) -> str | None:
    """Why a run does not repeat a published one; None where model, task, seed and learning rate are the paper's."""
    size = published_size(str(run.results["model"]["name"]))
    if size is None:
        return f"model {run.results['model']['name']} is none of the paper's (fairseq-dense-1.3B and -2.7B)"
    known = tables()[size]
    if run.task not in known["seed"]:
        return f"task {run.task} is none of the paper's ({', '.join(known['seed'])})"
    seed, rate = (run.results.get("demonstrations") or {}).get("seed"), (run.results.get("finetune") or {}).get("lr")
    if seed != known["seed"][run.task]:
        return f"seed {seed}, and the paper's is {known['seed'][run.task]}"
    if rate is None or not isclose(rate, known["learning_rate"][run.task], rel_tol=1e-6):
        return f"learning rate {rate}, and the paper's is {known['learning_rate'][run.task]}"
    return None


def repeated_size(run: TaskRun) -> str | None:
    """The published model size that a run repeats, or None."""
    return None if not_repeated(run) else published_size(str(run.results["model"]["name"]))


def tolerance(quantity: Quantity, run: TaskRun) -> float:
    """How far a figure may be from the published one, in the units it is shown in."""
    if quantity.table == "rec2ftp":
        corrected = (run.results.get("rec2ftp") or {}).get("corrected_by_ft")
        return max(REC2FTP_POINTS, 100 / corrected) if corrected else REC2FTP_POINTS
    return ACCURACY_POINTS if quantity.percent else SIMILARITY


def check(runs: Sequence[TaskRun]) -> list[Cell]:
    """Every published figure of the tasks that repeat a published run, with ours."""
    cells = []
    for run in runs:
        size = repeated_size(run)
        for quantity in QUANTITIES if size else ():
            published = tables()[size or ""].get(quantity.published or "", {}).get(run.task)
            if published is not None:
                cells.append(
                    Cell(
                        task=run.task,
                        quantity=quantity,
                        ours=value_of(quantity, run.results),
                        published=published,
                        tolerance=tolerance(quantity, run),
                    )
                )
    return cells


def deviations(run: TaskRun) -> list[str]:
    """What a repetition did otherwise than the published run, beyond the settings that make it one."""
    found = []
    count, token = (run.results.get("queries") or {}).get("count"), run.results["task"].get("probe_token")
    if count != _QUERIES[run.task]:
        found.append(f"{run.task}: {count} queries, and the published run had {_QUERIES[run.task]}")
    if token == "prompt":
        found.append(f"{run.task}: looked at the prompt's last token; the paper's program looks at the answer's")
    return found


def layer_distance(run: TaskRun) -> float | None:
    """Mean over layers of how far SimAOU is from Deutch et al.'s curve; None where there is none to compare with."""
    ours = (run.results.get("sim_aou") or {}).get("per_layer")
    known = published_layers(run.task, "sim_aou") if repeated_size(run) == "1.3B" else None
    if not ours or not known or len(ours) != len(known):
        return None
    apart = [abs(own - other) for own, other in zip(ours, known, strict=True) if own is not None]
    return sum(apart) / len(apart) if apart else None


def check_grid(runs: Sequence[TaskRun]) -> Grid:
    """The check as a table: each figure, ours, published, difference, and whether it is within tolerance.

    Raises:
        OutputError: no task of the run repeats a published run.
    """
    cells = check(runs)
    reasons = [f"{run.task}: not a repetition: {reason}" for run in runs if (reason := not_repeated(run))]
    if not cells:
        raise OutputError(
            f"No task repeats a published run ({'; '.join(reasons)}). Repeat one with: lightning-icl compare --model "
            "KoboldAI/fairseq-dense-1.3B --task paper --seed published --lr published --probe-token answer"
        )
    rows = [
        (
            cell.task,
            _name(cell.quantity),
            shown(cell.quantity, cell.ours),
            shown(cell.quantity, cell.published),
            signed(cell.quantity, cell.difference),
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
        notes=(TOLERANCE, *reasons, *layers, *(note for run in repeated for note in deviations(run))),
    )


def _name(quantity: Quantity) -> str:
    tables_named = {"simaou": "SimAOU", "simam": "SimAM", "kendall": "Kendall"}
    return f"{tables_named[quantity.table]}, {quantity.label}" if quantity.baseline else quantity.label
