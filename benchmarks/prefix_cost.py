"""What a shared prompt costs: one in-context query against one zero-shot query, and against a full forward pass.

    python -m benchmarks.prefix_cost            # GPT-2 124M shape, float32, prefix of 1,000 tokens

All are measured in turn in one run, so that the ratios hold when the machine's speed drifts.
"""

import argparse
import statistics
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_icl.data.queries import Query, collate
from lightning_icl.models.capture import Capture
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition


def measure(prefix: int, queries: int, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for all queries in each round: zero-shot, in-context, and one query with its prompt in full."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_positions=2048)).eval()
    ids = torch.randint(1, 50_000, (prefix,)).tolist()
    batch = collate(
        [
            Query(
                index=number,
                gold=0,
                prompt_ids=tuple(torch.randint(1, 50_000, (tokens,)).tolist()),
                answers=((5,), (6,)),
            )
            for number in range(queries)
        ]
    )
    seconds: dict[str, list[float]] = {"zero-shot": [], "in-context": [], "full forward of one": []}
    with Capture(model) as capture:
        views = {
            "zero-shot": View.prepare(capture, Condition(name="zsl", prefix_token_ids=(50256,))),
            "in-context": View.prepare(capture, Condition(name="icl", prefix_token_ids=(50256, *ids))),
        }
        for view in views.values():
            view.observe(capture, batch)
        for _ in range(rounds):
            for name, view in views.items():
                started = time.perf_counter()
                view.observe(capture, batch)
                seconds[name].append(time.perf_counter() - started)
    whole = torch.tensor([[50256, *ids, *batch.token_ids[0].tolist()]])
    with torch.inference_mode():
        for _ in range(rounds):
            started = time.perf_counter()
            model(input_ids=whole, use_cache=False, logits_to_keep=1)
            seconds["full forward of one"].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", type=int, default=1000, help="tokens of the prompt")
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=40, help="tokens of a query")
    parser.add_argument("--rounds", type=int, default=7)
    settings = parser.parse_args()
    seconds = measure(settings.prefix, settings.queries, settings.tokens, settings.rounds)
    for name, values in seconds.items():
        print(f"{name:20} median {statistics.median(values):.3f} s  ({min(values):.3f} to {max(values):.3f})")
    pairs = [icl / zsl for icl, zsl in zip(seconds["in-context"], seconds["zero-shot"], strict=True)]
    spread = f"({min(pairs):.2f} to {max(pairs):.2f})"
    print(f"an in-context query costs {statistics.median(pairs):.2f} zero-shot queries {spread}")
    shared = statistics.median(seconds["in-context"]) / settings.queries
    full = statistics.median(seconds["full forward of one"])
    print(f"a full forward pass of one query with its prompt costs {full / shared:.1f} queries with the shared prompt")


if __name__ == "__main__":
    main()
