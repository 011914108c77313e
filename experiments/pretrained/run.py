"""The comparison on a pretrained model, over seeds, with the controls that could refute it; one page and tables.

python -m experiments.pretrained.run --model smollm2-135m --data DATA
python -m experiments.pretrained.run --model gemma-3-270m --data DATA

Each seed is a run of `lightning-icl compare` in a folder of its own, which goes on where it stopped; what is finished
is not made again. `OUT/report.html` and the exported tables give means and standard errors over seeds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.finished import is_finished
from experiments.mistakes import told_in_one_line
from lightning_icl.comparison.commands import compare
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.report.show import show_report
from lightning_icl.results import RESULTS
from lightning_icl.tasks.catalogue import resolve_tasks

CONTROLS = "labels-random,labels-flipped,order,shuffled-query,ft-gaussian,untrained,calibration"


def settings_of(arguments: argparse.Namespace, seed: int) -> CompareSettings:
    """The settings of one seed; the learning rate of each task is chosen on held-out training rows."""
    return CompareSettings(
        model=arguments.model, task=arguments.tasks, data=arguments.data, shots=arguments.shots, seed=seed,
        limit=arguments.limit, lr="auto", controls=arguments.controls or None, out=str(arguments.out / f"seed-{seed}"),
    )  # fmt: skip


def carry_out(settings: CompareSettings) -> None:
    """Make one seed's run, or the tasks of it that are missing.

    Raises:
        UserError: something cannot be used, or a task's folder holds a run of other settings.
    """
    asked = {name: getattr(settings, name) for name in ("model", "shots", "seed", "limit", "controls")}
    folders = [Path(str(settings.out)) / task.name for task in resolve_tasks(settings.task).values()]
    # Each is looked at before one is made: other settings must show at once.
    finished = [is_finished(folder, RESULTS, asked) for folder in folders]
    if not all(finished):
        compare(settings)


@told_in_one_line()
def main(words: Sequence[str] | None = None) -> None:
    """Make every seed's run, then tables and the page; one line for what cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", default=None, help="folder of the tasks' rows; without it they come from the hub")
    parser.add_argument("--tasks", default="paper", help="as `--task` of `compare`")
    parser.add_argument("--shots", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--controls", default=CONTROLS, help="as of `compare`; empty for none")
    parser.add_argument("--out", type=Path, default=None, help="folder; without it runs/pretrained-MODEL")
    arguments = parser.parse_args(words)
    arguments.out = arguments.out or Path("runs") / f"pretrained-{arguments.model}"
    folders = [arguments.out / f"seed-{seed}" for seed in arguments.seeds]
    for seed in arguments.seeds:
        carry_out(settings_of(arguments, seed))
    show_report(folders, export=True, html=arguments.out / "report.html")


if __name__ == "__main__":
    main()
