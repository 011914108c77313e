"""Tokens a second on one device, and the share of the rate of the model's own matrix products: made for GPUs.

    python -m benchmarks.throughput --size fairseq-1.3b --queries 512 --batch-tokens 20480 --dtype bfloat16
    python -m benchmarks.throughput --size tiny --rounds 1      # whether it runs

Candidates take turns as in `benchmarks.speed`. Tokens are the queries' own; the prompt is run before the clock starts,
and attention to it counts as time, not as work.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import candidates as make
from benchmarks.rounds import Ratio, measure
from benchmarks.workload import WORKLOADS, Workload


def run(workload: Workload, dtype: torch.dtype, device: str, rounds: int) -> dict[str, object]:
    """All figures, as the JSON file holds them."""
    model = workload.model(dtype).to(device)  # type: ignore[arg-type]
    _, ours = make.observations(model, workload)
    products, operations = make.matrix_products(model, workload, dtype)
    seconds = measure(
        {
            "bare forward": make.plain_forward(model, workload),
            **ours,
            "products": products,
            "peers, one query": make.peers_way(model, workload),
        },
        rounds,
    )
    tokens, work = [float(workload.queries * workload.tokens)] * rounds, [operations / 1e12] * rounds
    ratios = [
        Ratio.of("matrix products, TFLOP/s", work, seconds["products"]),
        Ratio.of("ZSL, tokens a second", tokens, seconds["zsl"]),
        Ratio.of("ICL, tokens a second", tokens, seconds["icl"]),
        Ratio.of("ZSL's share of the matrix rate", seconds["products"], seconds["zsl"], target="≥ 0.50"),
        Ratio.of("ICL's share of the matrix rate", seconds["products"], seconds["icl"], target="≥ 0.50"),
        Ratio.of("ICL / ZSL observation", seconds["icl"], seconds["zsl"]),
        Ratio.of("comparison / bare forward", seconds["comparison"], seconds["bare forward"]),
        Ratio.of("peers' way / ICL, a query", seconds["peers, one query"], seconds["icl"], factor=workload.queries),
    ]
    return {
        "workload": asdict(workload),
        "rounds": rounds,
        "machine": {
            "device": torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads",
            "torch": torch.__version__,
            "dtype": str(dtype),
        },
        "ratios": [ratio.as_json() for ratio in ratios],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=WORKLOADS, default="gpt2")
    parser.add_argument("--queries", type=int, help="where not the workload's own")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file for the figures and all seconds")
    arguments = parser.parse_args()
    own = WORKLOADS[arguments.size]
    workload = own.but(queries=arguments.queries or own.queries, batch_tokens=arguments.batch_tokens)
    result = run(workload, getattr(torch, arguments.dtype), arguments.device, arguments.rounds)
    print(", ".join(map(str, result["machine"].values())))  # type: ignore[attr-defined]
    for ratio in result["ratios"]:  # type: ignore[attr-defined]
        print("{name:32} {median:12,.2f}   {low:12,.2f} – {high:,.2f}   {target}".format(**ratio))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
