"""A sweep divided among the machines of a Ray cluster: each trial of Ray Tune makes one part.

    python -m lightning_icl.sweeping.with_ray --parts 8 --gpus 1 -- --model M --task paper --out /shared/sweep

Behind `--` stand the flags of `lightning-icl sweep`. Ray places trials, watches them and starts failed ones again; a
part that is started again makes only what is missing. When all parts are done, the tables are made.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_icl.errors import UserError


def make_part(flags: Sequence[str], number: int, parts: int, folder: Path) -> None:
    """Make one part of a sweep in a process of its own.

    Args:
        flags: of `lightning-icl sweep`.
        number: of the part, from 0.
        parts: how many there are.
        folder: where relative paths in the flags begin.

    Raises:
        UserError: the process failed; with what it said last.
    """
    _sweep([*flags, "--part", f"{number}/{parts}"], folder)


def collect(flags: Sequence[str], folder: Path) -> None:
    """Make the tables of all parts, and print them."""
    _sweep([*flags, "--collect"], folder)


def sweep_with_ray(
    flags: Sequence[str], parts: int, cpus: float = 1, gpus: float = 0, repeats: int = 1, trials: str = "runs/ray"
) -> None:
    """Make all parts of a sweep as trials of Ray Tune, then its tables.

    Args:
        flags: of `lightning-icl sweep`. Its folders must be the same on every machine.
        parts: number of trials.
        cpus: processor cores of a trial.
        gpus: GPUs of a trial.
        repeats: how many times a failed trial is started again.
        trials: folder for Ray's own records.

    Raises:
        UserError: Ray is not installed, or a part failed.
    """
    try:
        from ray import tune
    except ImportError as error:
        raise UserError("Ray Tune is not installed. Install it: pip install 'lightning-icl[ray]'.") from error
    # Kept, since a trial runs in a folder of Ray's.
    here = Path.cwd()

    def trial(config: dict[str, int]) -> None:
        make_part(flags, config["part"], parts, here)

    results = tune.Tuner(
        tune.with_resources(trial, {"cpu": cpus, "gpu": gpus}),
        param_space={"part": tune.grid_search(list(range(parts)))},
        run_config=tune.RunConfig(
            storage_path=str((here / trials).resolve()), failure_config=tune.FailureConfig(max_failures=repeats)
        ),
    ).fit()
    if results.errors:
        raise UserError(
            f"{len(results.errors)} of {parts} parts failed; the same command goes on. The first: {results.errors[0]}"
        )
    collect(flags, here)


def _sweep(flags: Sequence[str], folder: Path) -> None:
    command = [sys.executable, "-m", "lightning_icl.cli", "sweep", *flags]
    # A process of its own: Ray's worker may live on and would keep the model's memory.
    process = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    if process.returncode:
        raise UserError(
            # The last line is the message; what stands above it is progress.
            process.stderr.strip().rpartition("\n")[2] or f"lightning-icl sweep ended with {process.returncode}"
        )


def main() -> None:
    """Read the command line, sweep, and end with status 1 and a message where that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, required=True, help="number of trials that the sweep is divided into")
    parser.add_argument("--cpus", type=float, default=1, help="processor cores of a trial (default 1)")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a trial (default 0)")
    parser.add_argument("--repeats", type=int, default=1, help="times a failed trial is started again (default 1)")
    parser.add_argument("--trials", default="runs/ray", help="folder for Ray's own records (default runs/ray)")
    parser.add_argument("flags", nargs="*", metavar="-- FLAGS", help="flags of lightning-icl sweep")
    settings = parser.parse_args()
    try:
        sweep_with_ray(**vars(settings))
    except UserError as error:
        sys.exit(f"lightning-icl: error: {error}")


if __name__ == "__main__":
    main()
