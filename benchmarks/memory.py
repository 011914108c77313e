"""Peak memory, every figure by a process of its own: does it grow with queries, and does a large model fit?

    python -m benchmarks.memory                      # GPT-2 124M shape, 200 and 2,000 queries
    python -m benchmarks.memory --size fairseq-1.3b  # 32 shots, 64 queries, bfloat16
    python -m benchmarks.memory --size tiny          # whether it runs

Each process fine-tunes and probes all queries with all metrics by the Trainer, as `compare` does. Printed are the
highest resident memory of its life (getrusage) and what it was made of: the libraries before there was a model,
weights, the prefixes' keys and values, and the highest up to the end of fine-tuning.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer

from benchmarks.workload import WORKLOADS
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.data.batches import batch_budget, batch_loader
from lightning_icl.data.module import demonstration_steps
from lightning_icl.data.queries import budget_batches
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe

MEASURED: dict[str, tuple[int, ...]] = {"tiny": (20, 200), "gpt2": (200, 2000), "fairseq-1.3b": (64,)}
DTYPES = {"tiny": "float32", "gpt2": "float32", "fairseq-1.3b": "bfloat16"}
MB = 1e6


def peak() -> float:
    """Highest resident memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


class HeldPrefixes(Callback):
    """Bytes of keys and values of all prefixes, while they are held."""

    size = 0

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *batch: object) -> None:
        """Add up what the probe holds."""
        assert isinstance(pl_module, ICLProbe)
        prefixes = [view.prefix for view in pl_module.views.values() if view.prefix is not None]
        states = [state for prefix in prefixes for state in (*prefix.keys, *prefix.values)]
        self.size = sum(state.numel() * state.element_size() for state in states)


def one(size: str, queries: int, dtype: str) -> dict[str, object]:
    """Compare in this process, and say what it took, in MB and seconds."""
    workload = WORKLOADS[size].but(queries=queries)
    demonstrations = workload.demonstrations()
    settings = CompareSettings(accelerator="cpu", precision={"float32": "32-true", "bfloat16": "bf16-true"}[dtype])
    held = HeldPrefixes()
    trainer = make_trainer(settings, [KVFinetuning(1e-3), held])
    before = peak()
    model = workload.model(getattr(torch, dtype))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / MB
    probe = ICLProbe(model, demonstrations)
    started = time.perf_counter()
    warnings.filterwarnings("ignore", ".*no `val_dataloader`.*")
    trainer.fit(probe, demonstration_steps(demonstrations))
    fitted, fitting = peak(), time.perf_counter() - started
    batches = budget_batches(workload.query_list(), batch_budget(settings.batch_tokens, []))
    trainer.validate(probe, batch_loader(batches), verbose=False)
    return {
        "size": size, "dtype": dtype, "queries": queries, "libraries": before, "weights": weights,
        "prefix": held.size / MB, "fine-tuned": fitted, "peak": peak(), "fine-tuning": fitting,
        "all": time.perf_counter() - started,
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
