"""What another budget of tokens a batch would give than the one that `--batch-tokens auto` stands for.

    python -m benchmarks.batch_cost --size smollm2              # or gpt2, gemma3; on a GPU where there is one
    python -m benchmarks.batch_cost --size tiny --budgets 48 96 --queries 16 --rounds 1    # whether it runs

A figure is the time of a whole comparison (zero-shot, in-context, fine-tuned, all metrics) in batches of a budget over
that in batches of the rule's. Random weights; the budgets take turns in one process, medians of the rounds.
"""

import argparse
from collections.abc import Sequence

import torch

from benchmarks.candidates import observations
from benchmarks.rounds import Ratio, measure
from benchmarks.workload import WORKLOADS
from lightning_icl.data.batches import batch_budget

BUDGETS = {"cpu": (256, 512, 2048, 4096), "cuda": (2048, 4096, 8192, 32_768)}


def main(words: Sequence[str] | None = None) -> None:
    """Print a line for each budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=WORKLOADS, default="gpt2")
    parser.add_argument("--budgets", type=int, nargs="+", help="to be held against the rule's")
    parser.add_argument("--queries", type=int, help="without it two batches of the largest budget")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=[*BUDGETS], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(words)
    workload = WORKLOADS[arguments.size]
    rule = batch_budget("auto", [], torch.device(arguments.device))
    budgets = [budget for budget in arguments.budgets or BUDGETS[arguments.device] if budget != rule]
    # Every budget must fill its batches, or a large one would be measured as a smaller one.
    workload = workload.but(queries=arguments.queries or -(-2 * max(*budgets, rule) // workload.tokens))
    model = workload.model(getattr(torch, arguments.dtype)).to(arguments.device)
    seconds = measure(
        {str(size): observations(model, workload.but(batch_tokens=size))[1]["comparison"] for size in (rule, *budgets)},
        arguments.rounds,
    )
    about = f"{workload.queries} queries of {workload.tokens} tokens"
    print(f"{arguments.size}, {arguments.dtype}, {arguments.device}: {about}")
    for budget in budgets:
        ratio = Ratio.of(f"{budget:,} / auto ({rule:,})", seconds[str(budget)], seconds[str(rule)])
        print(f"{ratio.name:28} {ratio.median:6.2f}   {ratio.low:.2f} – {ratio.high:.2f}")


if __name__ == "__main__":
    main()
