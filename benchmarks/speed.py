"""Speed against plain transformers, against the peers and against the machine's limit; every figure a ratio.

    python -m benchmarks.speed                                  # GPT-2 124M shape, prefix 1,000, 32 queries of 40
    python -m benchmarks.speed --size tiny --rounds 1           # whether it runs
    python -m benchmarks.speed --size smollm2 --parts observations limit finetuning  # deep and narrow, or gemma3
    python -m benchmarks.speed --parts processes --rounds 5     # what two processes bring, and where the rest goes
    python -m benchmarks.speed --json speed.json

The candidates of a figure take turns in one process, and a figure is the median of the rounds' ratios with the lowest
and the highest. What is not installed is named as skipped. Weights are random: speed does not depend on them.
"""

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import PreTrainedModel

from benchmarks import candidates as make
from benchmarks.growth import growth, processes
from benchmarks.rounds import Ratio, Seconds, measure
from benchmarks.workload import WORKLOADS, Workload
from lightning_icl.bfloat16_support import multiplies_bfloat16

DEEP_AND_NARROW = ("smollm2", "gemma3")
PARTS = ("observations", "peers", "limit", "finetuning", "growth", "processes")


def run(workload: Workload, rounds: int, parts: tuple[str, ...] = PARTS) -> dict[str, object]:
    """All figures of a workload, as the JSON file holds them."""
    model = workload.model()
    ratios: list[Ratio] = []
    seconds: Seconds = {}
    skipped: list[str] = []
    probe, ours = make.observations(model, workload)
    per_query = 1 / workload.queries
    narrow = workload.size in DEEP_AND_NARROW
    if "observations" in parts:
        bare = make.plain_forward(model, workload)
        seconds |= measure({"bare forward": bare, **ours, "kendall": make.kendall(probe, workload)}, rounds)
        ratios += [
            Ratio.of("ZSL observation / bare forward", seconds["zsl"], seconds["bare forward"]),
            Ratio.of("ICL / ZSL observation", seconds["icl"], seconds["zsl"], target="≤ 1.35" if narrow else "≤ 1.30"),
            Ratio.of("FT / ZSL observation", seconds["ft"], seconds["zsl"]),
            Ratio.of(
                "comparison / bare forward",
                seconds["comparison"],
                seconds["bare forward"],
                target="≤ 3.3" if narrow else "≤ 3.8",
            ),
            Ratio.of("Kendall's share of the comparison", seconds["kendall"], seconds["comparison"], target="≤ 0.04"),
        ]
    if "peers" in parts:
        found = measure({"peers": make.peers_way(model, workload), "icl": ours["icl"]}, rounds)
        seconds["peers, one query"] = found["peers"]
        ratios.append(
            Ratio.of("peers' way / ICL, a query", found["peers"], found["icl"], factor=1 / per_query, target="≥ 20")
        )
        score = make.harness(model, workload)
        if score is None:
            skipped.append("lm-evaluation-harness (not installed)")
        else:
            found = measure({"harness": score, "icl": ours["icl"]}, rounds)
            factor = 1 / per_query / make.harness_queries(workload)
            ratios.append(
                Ratio.of("lm_eval / ICL, a query", found["harness"], found["icl"], factor=factor, target="≥ 25")
            )
    if "limit" in parts:
        ratios += limit(model, workload, rounds, ours, seconds)
        if not multiplies_bfloat16():
            skipped.append("bfloat16's matrix rate (this processor has no instructions for it)")
    if "finetuning" in parts:
        found = measure(make.finetuning(model, workload), rounds)
        seconds |= found
        ratios.append(Ratio.of("fine-tuning by the Trainer / bare loop", found["fit"], found["bare loop"]))
    del model, probe, ours
    if "growth" in parts:
        ratios += growth(workload, rounds)
    if "processes" in parts:
        of_processes, phases = processes(rounds)
        ratios += of_processes
        seconds |= phases
    return {
        "workload": asdict(workload),
        "rounds": rounds,
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__, "system": platform.platform()},
        "ratios": [ratio.as_json() for ratio in ratios],
        "seconds": seconds,
        "skipped": skipped + [part for part in PARTS if part not in parts],
    }


def limit(
    model: PreTrainedModel, workload: Workload, rounds: int, ours: make.Candidates, seconds: Seconds
) -> list[Ratio]:
    """Zero-shot against the plain matrix products of the model's own shapes, and bfloat16 against float32."""
    products, operations = make.matrix_products(model, workload, torch.float32)
    candidates = {"products, float32": products, "zsl": ours["zsl"], "zsl, bfloat16": make.in_bfloat16(model, workload)}
    instructions = multiplies_bfloat16()
    if instructions:
        candidates["products, bfloat16"] = make.matrix_products(model, workload, torch.bfloat16)[0]
    found = measure(candidates, rounds)
    seconds |= {name: values for name, values in found.items() if name != "zsl"}
    exact, half, rate = found["zsl"], found["zsl, bfloat16"], [operations / 1e9] * rounds
    products_seconds = found["products, float32"]
    ratios = [
        Ratio.of("matrix products, float32, GFLOP/s", rate, products_seconds),
        Ratio.of("ZSL's share of that rate, float32", products_seconds, exact, target="≥ 0.80"),
        Ratio.of("ZSL float32 / bfloat16", exact, half, target="≥ 1.6" if instructions else ""),
    ]
    if instructions:
        products_seconds = found["products, bfloat16"]
        ratios += [
            Ratio.of("matrix products, bfloat16, GFLOP/s", rate, products_seconds),
            Ratio.of("ZSL's share of that rate, bfloat16", products_seconds, half),
        ]
    return ratios


def print_table(result: dict[str, object]) -> None:
    print(f"{'figure':42} {'median':>8}   {'lowest – highest':>20}   target")
    for ratio in result["ratios"]:  # type: ignore[attr-defined]
        spread = f"{ratio['low']:.2f} – {ratio['high']:.2f}"
        print(f"{ratio['name']:42} {ratio['median']:8.2f}   {spread:>20}   {ratio['target']}")
    for name in result["skipped"]:  # type: ignore[attr-defined]
        print(f"skipped: {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=WORKLOADS, default="gpt2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file for the figures and all seconds")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, help="which figures; without it all, for tiny no processes"
    )
    settings = parser.parse_args()
    parts = settings.parts or [part for part in PARTS if settings.size != "tiny" or part != "processes"]
    result = run(WORKLOADS[settings.size], settings.rounds, tuple(parts))
    print_table(result)
    if settings.json:
        settings.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
