"""What demonstrations cost a query as tokens, and what as fast weights: tokens a second and numbers kept, by shots.

python -m benchmarks.fast_weights                          # GPT-2 124M shape, float32, 32 queries of 40 tokens
python -m benchmarks.fast_weights --device cuda --rounds 9

The two take turns, so that the machine's drift meets both alike.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.workload import Workload
from lightning_icl.models.capture import Capture
from lightning_icl.weightupdate.fast_weights import fast_weights
from lightning_icl.weightupdate.ladder_observation import observe_condition


def seconds(call: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(workload: Workload, device: str, rounds: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of a batch in each round, and how many numbers stand for the demonstrations, by way of holding them."""
    model, demonstrations = workload.model().to(device), workload.demonstrations()  # type: ignore[arg-type]
    (batch,) = (batch.to(device) for batch in workload.batches())
    weights = fast_weights(model, demonstrations, [batch])
    with Capture(model) as capture:
        prefix = capture.prefix(demonstrations.prefix_token_ids)
        assert prefix is not None
        ways: dict[str, Callable[[], object]] = {
            "tokens": lambda: observe_condition(capture, batch, prefix, name="tokens"),
            "fast weights": lambda: weights.observe(capture, batch),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                spent = seconds(way, device)
                if number:  # the first is a warm-up
                    taken[name].append(spent)
    parts = [part for update in weights.updates.values() for part in vars(update).values() if part is not None]
    numbers = {"tokens": [*prefix.keys, *prefix.values], "fast weights": parts}
    return taken, {name: sum(part.numel() for part in kept) for name, kept in numbers.items()}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="gpt2", help="tiny, gpt2 or fairseq-1.3b")
    parser.add_argument("--lengths", type=int, nargs="+", default=[125, 250, 500, 1000], help="of the demonstrations")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    settings = parser.parse_args(words)
    print(f"{'demonstrations':>14}  {'held as':14}{'tokens a second':>16}{'numbers kept':>14}")
    for length in settings.lengths:
        workload = Workload(size=settings.size, prefix=length, shots=4, queries=32, tokens=40)
        taken, kept = measure(workload, settings.device, settings.rounds)
        for name, spent in taken.items():
            rate = workload.queries * workload.tokens / statistics.median(spent)
            print(f"{length:14}  {name:14}{rate:16,.0f}{kept[name]:14,}")


if __name__ == "__main__":
    main()
