"""Peak memory, every figure by a process of its own: does it grow with queries, and does a large model fit?

    python -m benchmarks.memory                      # GPT-2 124M shape, 200 and 2,000 queries
    python -m benchmarks.memory --size xglm-1.3b     # 32 shots, 64 queries, bfloat16
    python -m benchmarks.memory --size tiny          # whether it runs

Each process observes all queries under three conditions with all metrics, as `Trainer.validate` does, and says the
highest resident memory of its life (getrusage), what it took before the model was made, weights and prefix.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

MEASURED: dict[str, tuple[int, ...]] = {"tiny": (20, 200), "gpt2": (200, 2000), "xglm-1.3b": (64,)}
DTYPES = {"tiny": "float32", "gpt2": "float32", "xglm-1.3b": "bfloat16"}
MB = 1e6


def peak() -> float:
    """Highest resident memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def one(size: str, queries: int, dtype: str) -> dict[str, object]:
    """Compare in this process, and say what it took, in MB and seconds."""
    import torch

    from benchmarks.workload import WORKLOADS, ready_probe
    from lightning_icl.data.queries import budget_batches, collate

    workload = WORKLOADS[size].but(queries=queries)
    before = peak()
    model = workload.model(getattr(torch, dtype))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / MB
    probe = ready_probe(model, workload)
    prefix = sum(
        states.numel() * states.element_size()
        for view in probe._views.values()
        if view.prefix is not None
        for states in (*view.prefix.keys, *view.prefix.values)
    )
    ready, started = peak(), time.perf_counter()
    with torch.inference_mode():
        for number, batch in enumerate(budget_batches(workload.query_list(), 2048)):
            probe.validation_step(collate(batch), number)
    return {
        "size": size, "dtype": dtype, "queries": queries, "libraries": before, "weights": weights,
        "prefix": prefix / MB, "ready": ready, "peak": peak(), "seconds": time.perf_counter() - started,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=MEASURED, default="gpt2")
    parser.add_argument("--queries", type=int, help="measure this number of queries, in this process")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="of the weights; without it the size's own")
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    dtype = settings.dtype or DTYPES[settings.size]
    if settings.queries:
        print(json.dumps(one(settings.size, settings.queries, dtype)))
        return
    rows = []
    for queries in MEASURED[settings.size]:
        command = [sys.executable, "-m", "benchmarks.memory", "--size", settings.size, "--queries", str(queries),
                   "--dtype", dtype]  # fmt: skip
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(printed.splitlines()[-1]))
        print("  ".join(f"{key} {value:.0f}" if isinstance(value, float) else value for key, value in rows[-1].items()
                        if not isinstance(value, int)), f" queries {queries}  (MB, seconds)")  # fmt: skip
    if len(rows) > 1:
        print(f"peak of {rows[-1]['queries']} / {rows[0]['queries']} queries: {rows[-1]['peak'] / rows[0]['peak']:.3f}")
    if settings.json:
        settings.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
