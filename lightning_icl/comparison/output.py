"""What a comparison leaves in its folder: one folder for each task, each appearing whole, and the settings of all."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_icl.comparison._overlays import write_finetuned
from lightning_icl.comparison.assemble import assemble, prediction_rows
from lightning_icl.comparison.controls.run import Controlled, controls_section
from lightning_icl.comparison.plan import Plan, PlannedTask, resolved_settings
from lightning_icl.comparison.progress import say
from lightning_icl.errors import OutputError
from lightning_icl.plain_yaml import read_yaml, to_yaml
from lightning_icl.probing.findings import accuracy
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import VIEWS
from lightning_icl.report.show import print_summary
from lightning_icl.results import CONFIG, PREDICTIONS, RESULTS, finished_parts, to_json, to_json_lines
from lightning_icl.saving.paths import default_folder
from lightning_icl.saving.record import RECORD, check_own_files, check_replaceable, is_own, read_record
from lightning_icl.saving.workspace import Workspace, held


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A plan with the folder that it writes into."""

    plan: Plan
    space: Workspace | None
    """The folder, in use by this process; None for any but the first of several processes."""
    kept: frozenset[str] = frozenset()
    """Tasks that an interrupted run with the same settings has finished."""

    @property
    def pending(self) -> tuple[PlannedTask, ...]:
        """The tasks to make."""
        return tuple(planned for planned in self.plan.tasks if planned.task.name not in self.kept)

    @contextmanager
    def writing(self, planned: PlannedTask) -> Iterator[Path]:
        """A hidden folder that becomes the task's.

        Raises:
            OutputError: it cannot be written.
        """
        assert self.space is not None
        # The run's settings may stand only beside figures they made, so they go until all tasks are done.
        self.space.remove(self.plan.out / CONFIG)
        with self.space.replacing(self.plan.out / planned.task.name) as part:
            yield part


@contextmanager
def claimed(
    plan: Plan,
    marker: str,
    settings_of: Callable[[Plan, PlannedTask], Mapping[str, object]] = resolved_settings,
    overlays: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Use the plan's folder alone, everything that could keep results from being written found before.

    Tasks that an interrupted run with the same settings has finished are kept.

    Args:
        plan: what is to be run.
        marker: the file that a finished task's folder holds.
        settings_of: the settings that are kept with a task.
        overlays: hashes of the fine-tunings that are probed, by task, where they were made before.

    Raises:
        OutputError: the folder holds a run, or what is not this program's, is in use, or cannot be written.
    """
    folders = ((planned, plan.out / planned.task.name) for planned in plan.tasks if not plan.settings.overwrite)
    kept = frozenset(
        # Kept only if all of it is intact, was made by the same settings, and on the same rows and weights.
        planned.task.name
        for planned, folder in folders
        if _intact(folder, marker)
        and _as_now(folder, settings_of(plan, planned))
        and _of_the_same(folder / marker, plan.fingerprints(planned), (overlays or {}).get(planned.task.name))
    )
    # Other processes run the same tasks, but only the first one may touch the folder.
    if getattr(rank_zero_only, "rank", 0):
        yield Run(plan=plan, space=None, kept=kept)
        return
    default = plan.settings.out is None
    if default:
        # Named only now, by the process that makes it: another name would have to reach the others.
        plan = dataclasses.replace(plan, out=default_folder(plan.settings.model))
    try:
        with held(plan.out) as space:
            _check(plan, marker, kept)
            _tell(plan, kept)
            yield Run(plan=plan, space=space, kept=kept)
            _save_config(space, plan, marker)
    finally:
        if default:
            with suppress(OSError):  # not empty
                plan.out.rmdir()


def _check(plan: Plan, marker: str, kept: frozenset[str]) -> None:
    """Find everything that stands in the way of the tasks that are not kept."""
    out, settings = plan.out, plan.settings
    # A file of the user's own by that name would be overwritten.
    check_own_files(out, [CONFIG], "Give another --out.")
    finished = {path.parent.name for path in finished_parts(out, marker)}
    complete = len(kept) == len(plan.tasks) and (out / CONFIG).exists()  # that is written last
    if not settings.overwrite and (finished - kept or complete):
        raise OutputError(
            f"{str(out)!r} already holds a run ({_listed(sorted(finished))}). Give another --out, or pass --overwrite "
            "to replace the tasks that are run again."
        )
    for folder in (out / planned.task.name for planned in plan.tasks if planned.task.name not in kept):
        check_replaceable(folder, "Give another --out.")
        if (folder / RECORD).exists() and not settings.overwrite:
            raise OutputError(
                f"{str(folder)!r} was made before. Give another --out, or pass --overwrite to replace it."
            )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _intact(folder: Path, marker: str) -> bool:
    """Whether a task's folder holds a finished one, every file as it was written."""
    record = read_record(folder)
    return {marker, CONFIG} <= record.keys() and all(is_own(folder / name, folder, record) for name in record)


def _as_now(folder: Path, now: Mapping[str, object]) -> bool:
    """Whether a task was made by the present settings; its place and what is shown of it may differ."""
    made = read_yaml(folder / CONFIG, "configuration file")
    assert isinstance(made, dict)
    # Missing keys count as different: a version with a new setting did not make this run.
    return all(made.get(key) == now.get(key) for key in {*made, *now} - {"out", "tables"})


def _of_the_same(path: Path, fingerprints: Mapping[str, str], overlay: str | None) -> bool:
    """Whether a finished task is of the same rows and weights, and not without figures."""
    content = json.loads(path.read_text(encoding="utf-8"))
    before = content.get("fingerprints") or {}
    return (
        (path.name != RESULTS or content["queries"]["count"] > 0)
        and all(before.get(name) == own for name, own in fingerprints.items())
        # Without an overlay there is nothing to compare.
        and overlay in (None, before.get("overlay"))
    )


def _tell(plan: Plan, kept: frozenset[str]) -> None:
    if kept:
        say(f"Kept, as made before with the same settings: {', '.join(sorted(kept))}.")
    for planned in plan.tasks:
        used, requested = len(planned.data.demonstrations), plan.settings.shots
        if used < requested:
            say(
                f"{planned.task.name}: {used} demonstrations of the {requested} asked for fit the context.",
                style="yellow",
            )


def _save_config(space: Workspace, plan: Plan, marker: str) -> None:
    """Keep the settings of the whole run, where everything in its folder was made by them."""
    # With tasks of an earlier run beside them, one file could not describe both.
    tasks = {planned.task.name for planned in plan.tasks}
    if {path.parent.name for path in finished_parts(plan.out, marker)} == tasks:
        with space.adding() as part:
            (part / CONFIG).write_text(to_yaml(dataclasses.asdict(plan.settings)), encoding="utf-8")


@rank_zero_only
def save_results(run: Run, planned: PlannedTask, probe: ICLProbe, controlled: Controlled | None = None) -> None:
    """Write one task's folder, whole or not at all, and say what came out.

    Raises:
        OutputError: it cannot be written, or there is nothing to write.
    """
    if not probe.predictions:
        raise OutputError(f"No query of task {planned.task.name!r} was looked at; nothing is saved.")
    content = assemble(run.plan, planned, probe)
    if run.plan.controls and controlled is not None:
        content["controls"] = controls_section(controlled, probe)
        content["timing"]["controls_s"] = round(controlled.seconds, 3)
    with run.writing(planned) as part:
        (part / RESULTS).write_text(to_json(content), encoding="utf-8")
        rows = prediction_rows(probe.predictions, planned.data.query_texts)
        (part / PREDICTIONS).write_text(to_json_lines(rows), encoding="utf-8")
        (part / CONFIG).write_text(to_yaml(resolved_settings(run.plan, planned)), encoding="utf-8")
        if probe.finetuned is not None:
            # Query vectors only by `fit`: `compare` has ranked with them already.
            write_finetuned(part, run.plan, planned, probe, queries=False)
    figures = ", ".join(
        f"{name.upper()} {100 * accuracy(probe.predictions, name):.1f}"
        for name in VIEWS
        if name in probe.predictions[0].scores
    )
    # Only what the comparison itself took: controls have a time of their own.
    seconds = f"{sum(probe.seconds[name] for name in ('prefix', 'finetune', 'validate')):.1f} s"
    # A chosen rate comes with its fine-tuning, which then costs the comparison nothing.
    if planned.choice is not None:
        seconds += f", after {planned.choice_seconds:.1f} s for the rate and its fine-tuning"
    say(f"{planned.task.name}: {len(probe.predictions)} queries, accuracy {figures} ({seconds})")


@rank_zero_only
def save_finetuning(run: Run, planned: PlannedTask, probe: ICLProbe) -> None:
    """Write one task's overlay and query vectors, whole or not at all.

    Raises:
        OutputError: they cannot be written.
    """
    with run.writing(planned) as part:
        write_finetuned(part, run.plan, planned, probe, queries=True)
        (part / CONFIG).write_text(to_yaml(resolved_settings(run.plan, planned)), encoding="utf-8")


@rank_zero_only
def show_results(run: Run) -> None:
    """Print the run's tables and where they are."""
    out = run.plan.out
    print_summary(out, run.plan.settings.tables, [planned.task.name for planned in run.plan.tasks])
    say(f"Results are in {out}; this table again: lightning-icl report {out}")
