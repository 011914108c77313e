"""The ladder of weight updates over tasks, shots, seeds and scopes, and one table of what came out.

python -m experiments.weight_update.run --model builtin
python -m experiments.weight_update.run --model smollm2-135m --tasks sst2,agnews --data DATA --limit 64

Each combination is a run of `lightning-icl weight-update` in a folder of its own; finished ones are kept, so that an
interrupted experiment goes on where it stopped. `summary.csv` has one row for each of their conditions.
"""

import argparse
import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from lightning_icl.models.scope import Scope
from lightning_icl.report.ladder import WEIGHT_UPDATE
from lightning_icl.weightupdate.commands import weight_update
from lightning_icl.weightupdate.settings import WeightUpdateSettings

COLUMNS = ("accuracy", "agreement", "kl", "answer_kl", "margin_correlation", "rec2ftp", "simaou_icl", "simaou_ft")


def combinations(arguments: argparse.Namespace) -> Iterator[tuple[Path, WeightUpdateSettings]]:
    """Folder and settings of every run."""
    parts = (arguments.scopes.split(","), arguments.shots, arguments.seeds)
    for scope, shots, seed in itertools.product(*parts):
        folder = arguments.out / f"{scope}-{shots}-shots-seed-{seed}"
        yield folder, WeightUpdateSettings(
            model=arguments.model, task=arguments.tasks, data=arguments.data, limit=arguments.limit, scope=scope,
            held_out=arguments.held_out, shots=shots, seed=seed, out=str(folder),
        )  # fmt: skip


def rows(out: Path) -> Iterator[dict[str, Any]]:
    """One row for each condition of each finished task."""
    for path in sorted(out.glob(f"*/*/{WEIGHT_UPDATE}")):
        content = json.loads(path.read_text(encoding="utf-8"))
        about = {"model": content["model"]["name"], "task": content["task"]["name"], "scope": content["scope"]}
        about |= {key: content["demonstrations"][name] for key, name in (("shots", "count"), ("seed", "seed"))}
        for condition, figures in content["conditions"].items():
            yield {**about, "condition": condition, **{name: figures[name] for name in COLUMNS}}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--tasks", default="builtin", help="as `--task` of the command")
    parser.add_argument("--data", default=None)
    parser.add_argument("--scopes", default=",".join(get_args(Scope)))
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--held-out", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/weight-update"))
    arguments = parser.parse_args(words)
    for folder, settings in combinations(arguments):
        if not (folder / "config.yaml").is_file():
            weight_update(settings)
    with (arguments.out / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["model", "task", "scope", "shots", "seed", "condition", *COLUMNS])
        writer.writeheader()
        writer.writerows(rows(arguments.out))


if __name__ == "__main__":
    main()
