"""Groups of runs keep within the memory that the plan states."""

from pathlib import Path

from lightning_icl.comparison.trainer import DTYPES
from lightning_icl.models.loading import load_model
from lightning_icl.probing.group_memory import groups_within, run_bytes, training_bytes
from lightning_icl.sweeping.cost import finetunings
from lightning_icl.sweeping.plan import make_sweep_plan
from lightning_icl.sweeping.settings import SweepSettings


def test_runs_take_their_steps_in_groups_that_fit_the_memory(tmp_path: Path) -> None:
    settings = SweepSettings(
        task="tiny-cb", seeds="1,2", shots="2,4", lrs="0.1,0.2,0.4", limit=8, out=str(tmp_path / "out")
    )
    plan = make_sweep_plan(settings)
    task = plan.tasks[0]
    model = load_model(task.subject.source, DTYPES["32-true"])
    runs = finetunings(task, [(unit, rate) for unit in task.data for rate in plan.settings.rates])
    longest = max(len(run.tokens(step)) for run in runs for step in range(len(run.demonstrations)))
    sizes = {run: training_bytes(model, run.demonstrations, longest) for run in runs}
    assert all(size > run_bytes(model, run.demonstrations) for run, size in sizes.items())
    for budget in (1e-6, 2.5 * max(sizes.values()) / 1e9, 100.0):
        groups = groups_within(runs, model, budget)
        assert [run for group in groups for run in group] == runs, "every run once, in order"
        for group in groups:
            assert len(group) == 1 or sum(sizes[run] for run in group) <= budget * 1e9
    assert len(groups_within(runs, model, 1e-6)) == len(runs)
    assert len(groups_within(runs, model, 100.0)) == 1
