"""The sweep's folder: made, or gone on with where it holds the same sweep and nothing of anybody else is in the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_icl.errors import OutputError
from lightning_icl.report.sweep import PLAN
from lightning_icl.results import to_json
from lightning_icl.saved_json import read_json
from lightning_icl.saving.record import check_own_files, check_replaceable
from lightning_icl.saving.workspace import Workspace, held
from lightning_icl.sweeping.plan import SCHEMA, SweepPlan, fixed

TABLES = ("sweep.csv", "summary.csv", "sweep.parquet")
_WAIT = 30.0  # seconds; parts that start together write the plan one after the other


@contextmanager
def claimed(plan: SweepPlan) -> Iterator[Workspace]:
    """Use the sweep's folder: alone, or beside the other parts of the same sweep.

    Raises:
        OutputError: it cannot be written, is in use, holds a sweep with other settings, or what is not this program's.
    """
    # Alone, the folder is held to the end; parts hold it only while the plan is written.
    if plan.settings.part is None:
        with held(plan.out) as space:
            _begin(plan, space)
            yield space
        return
    with held(plan.out, wait=_WAIT) as space:
        _begin(plan, space)
    with held(plan.out, "part-{}-of-{}".format(*plan.settings.share)) as space:
        yield space


def _begin(plan: SweepPlan, space: Workspace) -> None:
    """Check the folder against the plan, and keep the plan in it."""
    advice = "Give another --out."
    check_own_files(plan.out, TABLES, advice)
    for task in plan.tasks:
        # What is to be made must be free, before hours are spent on it.
        for unit, rate in plan.pending(task):
            check_replaceable(unit.run_folder(rate), advice)
    settings = plan.settings
    content = {
        "schema": SCHEMA,
        **fixed(settings),
        "model": list(settings.models),
        # One model's tasks stand for all: every model has the same.
        "task": [task.task.name for task in plan.tasks if task.model == settings.models[0]],
        "lrs": list(settings.rates),
        "fingerprints": plan.fingerprints,
    }
    path = plan.out / PLAN
    if path.exists():
        before = read_json(path, "sweep_plan")
        # `--overwrite` measures everything again, so nothing old needs to fit.
        if not settings.overwrite:
            # Settings first: with other seeds or shots the tokens are others too.
            _check_grown(plan.out, before, content)
            _check_inputs(plan.out, before.get("fingerprints", {}), plan.fingerprints)
        # The same plan again: nothing to write.
        if before == content:
            return
    with space.adding() as part:
        (part / PLAN).write_text(to_json(content), encoding="utf-8")


def _check_grown(out: Path, before: dict[str, object], now: dict[str, object]) -> None:
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        # These may grow: their runs stand in folders of their own.
        if key in ("model", "task", "lrs"):
            assert isinstance(old, list)
            assert isinstance(new, list)
            lost = [value for value in old if value not in new]
            if lost:
                raise OutputError(
                    f"{str(out)!r} holds a sweep with more: --{key} lacks {lost}. A sweep may grow by models, tasks "
                    "and rates, not shrink. Give another --out."
                )
        elif old != new and key != "fingerprints":
            raise OutputError(
                f"{str(out)!r} holds a sweep with --{key.replace('_', '-')} {old}, not {new}. Give another --out, or "
                "--overwrite to measure everything again."
            )


_INPUTS = {
    "task": "template or answers",
    "rows": "rows",
    "tokens": "tokens (tokenizer or chat template)",
    "weights": "weights",
}


def _check_inputs(out: Path, before: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> None:
    """What was measured before was measured on the same rows, task and weights."""
    # New models and tasks have nothing before.
    for name in before.keys() & now.keys():
        for kind, words in _INPUTS.items():
            if before[name].get(kind) != now[name][kind]:
                raise OutputError(
                    f"{str(out)!r} holds a sweep begun with other {words} of {name!r}: they have changed since. Give "
                    "another --out, or --overwrite to measure everything again."
                )
