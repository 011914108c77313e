"""What bootstrap intervals cost: the metrics of one contrast with replicates against the same without.

    python -m benchmarks.bootstrap_cost            # GPT-2 124M shape: 12 layers of 12 heads, width 768

Both are updated in turn in one run with the same random observations, so that the ratio holds when the machine's speed
drifts. Drawing the weights of a batch is shown on its own.
"""

import argparse
import statistics
import time

import torch
from torchmetrics import Metric

from lightning_icl.metrics import Kendall, Rec2FTP, SimAM, SimAOU
from lightning_icl.metrics.bootstrap import REPLICATES, poisson_weights


def metrics_of(layers: int, heads: int, prefix: int, replicates: int) -> list[Metric]:
    """The four metrics of a contrast."""
    numbers = [place // 32 for place in range(prefix)]
    return [
        Rec2FTP(replicates=replicates),
        SimAOU(layers, replicates=replicates),
        SimAM(layers, heads, replicates=replicates),
        Kendall(numbers, layers, replicates=replicates),
    ]


def measure(queries: int, layers: int, heads: int, width: int, prefix: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for one batch in each round."""
    torch.manual_seed(0)
    ids = torch.arange(queries)
    data = [
        (*torch.randn(3, queries, 2), torch.zeros(queries, dtype=torch.int64), ids),
        (*torch.randn(3, queries, layers, width), ids),
        (*torch.randn(3, queries, layers, heads, 40), torch.full((queries,), 40), ids),
        (*torch.randn(2, queries, layers, prefix), ids),
    ]
    kinds = {
        "without": metrics_of(layers, heads, prefix, 0),
        "with replicates": metrics_of(layers, heads, prefix, REPLICATES),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*kinds, "weights alone")}
    for number in range(rounds + 1):
        for name, metrics in kinds.items():
            started = time.perf_counter()
            for metric, batch in zip(metrics, data, strict=True):
                metric.update(*batch)
            seconds[name].append(time.perf_counter() - started)
        started = time.perf_counter()
        poisson_weights(ids)
        seconds["weights alone"].append(time.perf_counter() - started)
        if number == 0:  # warm-up
            seconds = {name: [] for name in seconds}
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=32, help="of a batch")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--prefix", type=int, default=1000, help="tokens of the prompt")
    parser.add_argument("--rounds", type=int, default=7)
    settings = parser.parse_args()
    seconds = measure(**vars(settings))
    for name, values in seconds.items():
        print(f"{name:16} median {statistics.median(values):.4f} s  ({min(values):.4f} to {max(values):.4f})")
    pairs = [more / less for more, less in zip(seconds["with replicates"], seconds["without"], strict=True)]
    spread = f"({min(pairs):.2f} to {max(pairs):.2f})"
    print(f"metrics with {REPLICATES} replicates cost {statistics.median(pairs):.2f} times those without {spread}")


if __name__ == "__main__":
    main()
