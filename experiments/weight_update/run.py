"""The ladder of weight updates of one model over tasks, shots, seeds and scopes.

python -m experiments.weight_update.run builtin
python -m experiments.weight_update.run smollm2-135m --data DATA
python -m experiments.weight_update.run gemma-3-270m --data DATA
python -m experiments.weight_update.run smollm2-135m --data DATA --quick

Each part, one task with so many shots, a seed and a scope, is a run of `lightning-icl weight-update` in a folder of its
own. Finished ones are kept, so that an interrupted experiment goes on where it stopped; a part that the command
refuses, such as prompts longer than a sliding window, is said and left out. The tables and the picture of `summary` are
made anew after every part.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from experiments.finished import is_finished
from experiments.mistakes import told_in_one_line
from experiments.weight_update.summary import summarise
from lightning_icl.errors import UserError
from lightning_icl.models.scope import Scope
from lightning_icl.report.ladder import WEIGHT_UPDATE
from lightning_icl.tasks.catalogue import resolve_tasks
from lightning_icl.weightupdate.commands import weight_update
from lightning_icl.weightupdate.settings import WeightUpdateSettings

QUICK = {"tasks": "sst2,agnews", "scopes": "probe", "shots": [4, 16], "seeds": [1], "limit": 32, "held_out": 16}
"""What `--quick` takes where nothing else is given; of the built-in model the tasks that imitate these."""


def parts(arguments: argparse.Namespace) -> Iterator[WeightUpdateSettings]:
    """Settings of every part; a seed is complete before the next begins."""
    tasks = [task.name for task in resolve_tasks(arguments.tasks).values()]
    for seed, scope, task, shots in itertools.product(
        arguments.seeds, arguments.scopes.split(","), tasks, arguments.shots
    ):
        yield WeightUpdateSettings(
            model=arguments.model, task=task, data=arguments.data, limit=arguments.limit, held_out=arguments.held_out,
            scope=scope, shots=shots, seed=seed, lr=arguments.lr,
            out=str(arguments.out / f"{scope}-{task}-{shots}-shots-seed-{seed}"),
        )  # fmt: skip


def carry_out(settings: WeightUpdateSettings) -> str | None:
    """Make one part unless it is finished; why it was refused, where it was.

    Raises:
        OutputError: its folder holds one of other settings.
    """
    folder = Path(str(settings.out))
    names = ("model", "scope", "shots", "seed", "limit", "held_out", *(() if settings.lr is None else ("lr",)))
    asked = {name: getattr(settings, name) for name in names}
    if is_finished(folder / settings.task, WEIGHT_UPDATE, asked):
        return None
    try:
        weight_update(settings)
    except UserError as error:
        return f"{folder.name}: {error}"
    return None


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="builtin, smollm2-135m, gemma-3-270m, or as `--model` of the command")
    parser.add_argument("--quick", action="store_true", help="two tasks, 4 and 16 shots, one seed, 32 queries")
    parser.add_argument("--tasks", default=None, help="as `--task` of the command; six by default")
    parser.add_argument("--data", default=None, help="folder of the tasks' rows")
    parser.add_argument("--scopes", default=None, help="names with commas between them; all three by default")
    parser.add_argument("--shots", type=int, nargs="+", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=None)
    parser.add_argument("--limit", type=int, default=None, help="queries of each part; 256 by default")
    parser.add_argument("--held-out", type=int, default=None, help="prompts to expand about; 32 by default")
    parser.add_argument("--lr", type=float, default=None, help="as of the command, which else knows or chooses one")
    parser.add_argument("--out", type=Path, default=None, help="folder; without it runs/weight-update-MODEL")
    arguments = parser.parse_args(words)
    own_tasks = arguments.model.startswith("builtin")
    whole = {
        "tasks": "builtin" if own_tasks else "paper", "scopes": ",".join(get_args(Scope)),
        "shots": [1, 2, 4, 8, 16, 32], "seeds": [1, 2, 3], "limit": 256, "held_out": 32,
    }  # fmt: skip
    quick = QUICK | ({"tasks": "tiny-sst2,tiny-agnews"} if own_tasks else {})
    for name, value in (quick if arguments.quick else whole).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    arguments.out = arguments.out or Path("runs") / f"weight-update-{arguments.model}"
    return arguments


@told_in_one_line()
def main(words: Sequence[str] | None = None) -> None:
    """Make every part that is not finished, then the tables; one line for what cannot be used."""
    arguments, refused = parsed(words), []
    for settings in parts(arguments):
        reason = carry_out(settings)
        if reason is not None:
            refused.append(reason)
            print(reason)
        summarise(arguments.out)
    print(summarise(arguments.out))
    print("\n".join(["", "Left out:", *refused] if refused else []))


if __name__ == "__main__":
    main()
