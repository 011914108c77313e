"""How the cost of a comparison grows: with queries, shots, layers and width in one process, and with processes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.candidates import observations
from benchmarks.rounds import Ratio, measure
from benchmarks.workload import Workload


def growth(workload: Workload, rounds: int) -> list[Ratio]:
    """A comparison of twice the queries, and of half the shots, layers and width, against the workload's own."""
    config = workload.config()
    layers, width = int(config.num_hidden_layers), int(config.hidden_size)
    variants = {
        "queries × 2": workload.but(queries=2 * workload.queries),
        "shots × 1/2": workload.but(shots=workload.shots // 2, prefix=workload.prefix // 2),
        "layers × 1/2": workload.but(layers=layers // 2),
        "width × 1/2": workload.but(width=width // 2),
    }
    ratios = []
    for name, variant in variants.items():
        candidates = {
            key: observations(item.model(), item)[1]["comparison"]
            for key, item in (("own", workload), ("other", variant))
        }
        seconds = measure(candidates, rounds)
        ratios.append(Ratio.of(f"comparison, {name} / own", seconds["other"], seconds["own"]))
    return ratios


def processes(rounds: int, count: int = 2, queries: int = 512) -> Ratio:
    """The probing of the built-in task by several processes of one thread each, against one such process."""
    taken: dict[int, list[float]] = {1: [], count: []}
    for _ in range(rounds):
        for number, seconds in taken.items():
            seconds.append(_validate_seconds(number, queries))
    return Ratio.of(f"probing, {count} processes / 1", taken[count], taken[1])


def _validate_seconds(devices: int, queries: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "lightning_icl.cli", "compare", "--task", "tiny-sst2", "--accelerator", "cpu"),
            *("--limit", str(queries), "--devices", str(devices), "--out", folder, "--overwrite"),
            *("--batch-tokens", "256"),  # whole batches are divided, so there must be many
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        results = json.loads((Path(folder) / "tiny-sst2" / "results.json").read_text())
        return float(results["timing"]["validate_s"])
