"""How the cost of a comparison grows: with queries, shots, layers and width in one process, and with processes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.candidates import observations
from benchmarks.rounds import Ratio, Seconds, measure, timed
from benchmarks.workload import Workload

REPEATED = ("prompt", "fine-tuning", "start-up and the rest")
"""What every process does for itself."""


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


def processes(rounds: int, count: int = 2, queries: int = 512) -> tuple[list[Ratio], Seconds]:
    """A comparison of the built-in task by several processes of one thread each against one such process, by phase.

    Every process runs the prompt and fine-tunes, and the first one starts the others; only probing is divided.
    """
    alone: Seconds = {}
    together: Seconds = {}
    for _ in range(rounds):
        for number, taken in ((1, alone), (count, together)):
            for phase, seconds in _phases(number, queries).items():
                taken.setdefault(phase, []).append(seconds)
    ratios = [
        Ratio.of(f"probing, 1 process / {count}", alone["probing"], together["probing"], target="≥ 1.8"),
        Ratio.of("of it gathering and waiting", together["gathering"], together["probing"]),
        *(Ratio.of(f"{phase}, {count} processes / 1", together[phase], alone[phase]) for phase in REPEATED),
        Ratio.of(f"whole command, 1 process / {count}", alone["whole"], together["whole"]),
    ]
    named = {f"{phase}, 1 process": own for phase, own in alone.items()}
    return ratios, named | {f"{phase}, {count} processes": own for phase, own in together.items()}


def _phases(devices: int, queries: int) -> dict[str, float]:
    """Seconds of each phase of a command, as the first process has them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "lightning_icl.cli", "compare", "--task", "tiny-sst2", "--accelerator", "cpu"),
            *("--limit", str(queries), "--devices", str(devices), "--out", folder, "--overwrite"),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        whole = timed(lambda: subprocess.run(command, check=True, env=environment, capture_output=True))
        timing = json.loads((Path(folder) / "tiny-sst2" / "results.json").read_text())["timing"]
    parts = {"prompt": "prefix_s", "fine-tuning": "finetune_s", "probing": "validate_s", "gathering": "gather_s"}
    phases = {phase: float(timing[key]) for phase, key in parts.items()}
    # Imports, rows, weights, start of the other processes, the built-in model's rounding check, saving and printing.
    rest = whole - phases["prompt"] - phases["fine-tuning"] - phases["probing"]
    return {**phases, "start-up and the rest": rest, "whole": whole}
