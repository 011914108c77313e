"""What momentum attention costs in training: the same step with plain attention and with each form, in alternation.

python -m benchmarks.momentum_cost  # GPT-2 124M shape, float32, one sequence
python -m benchmarks.momentum_cost --layers 6 --width 256 --heads 8 --vocabulary 4096 --lengths 1024 --batch 4

Time is that of forward and backward; memory the highest that tensors take in a step, beyond what is there before it,
as PyTorch's profiler (on CPU) or its allocator (on CUDA) counts it. One V-sized tensor is batch x tokens x width
numbers.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_icl import to_momentum

FORMS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "sum": {},
    "sum, learnt": {"learn": True},
    "mean": {"form": "mean"},
    "mean, learnt": {"form": "mean", "learn": True},
    "mean, learnt, gate": {"form": "mean", "learn": True, "gate_init": 0.0},
    "previous, gate": {"form": "previous", "gate_init": 0.0},
}


def make_models(config: GPT2Config, device: str, dtype: torch.dtype) -> dict[str, GPT2LMHeadModel]:
    """The plain model, and those that differ from it in momentum alone."""
    models = {}
    for name, asked in FORMS.items():
        torch.manual_seed(0)
        model = GPT2LMHeadModel._from_config(config.__class__(**config.to_dict()), attn_implementation="sdpa")
        models[name] = model.to(device, dtype).train()
        if asked is not None:
            to_momentum(model, eta=0.9, **asked)
    return models


def step(model: GPT2LMHeadModel, ids: torch.Tensor) -> None:
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for parameter in model.parameters():
        parameter.grad = None


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(models: dict[str, GPT2LMHeadModel], ids: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step in each round; the models take turns, so that the machine's drift meets all alike."""
    taken: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, model in models.items():
            synchronize(ids.device.type)
            started = time.perf_counter()
            step(model, ids)
            synchronize(ids.device.type)
            if number:  # the first is a warm-up
                taken[name].append(time.perf_counter() - started)
    return taken


def peak_bytes(model: GPT2LMHeadModel, ids: torch.Tensor) -> int:
    """The highest number of bytes that tensors of one step take together."""
    if ids.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(model, ids)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(model, ids)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        taken += event.nbytes()
        highest = max(highest, taken)
    return highest


def report(models: dict[str, GPT2LMHeadModel], lengths: Sequence[int], batch: int, rounds: int) -> None:
    plain = models["plain"]
    device, size = plain.device.type, plain.dtype.itemsize
    header = ("tokens", "model", "s per step", "us per token", "ratio to plain", "extra V a layer")
    print("{:>6}  {:20}{:>11}{:>14}{:>26}{:>17}".format(*header))
    for length in lengths:
        ids = torch.randint(0, plain.config.vocab_size, (batch, length), device=device)
        taken = seconds(models, ids, rounds)
        base = peak_bytes(plain, ids)
        for name, values in taken.items():
            ratios = [value / other for value, other in zip(values, taken["plain"], strict=True)]
            unit = batch * length * plain.config.n_embd * size * plain.config.n_layer
            extra = (peak_bytes(models[name], ids) - base) / unit
            median = statistics.median(values)
            spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            print(f"{length:6}  {name:20}{median:11.3f}{median / batch / length * 1e6:14.0f}{spread:>26}{extra:17.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048], help="tokens of a sequence")
    parser.add_argument("--batch", type=int, default=1, help="sequences in a step")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    settings = parser.parse_args()
    config = GPT2Config(
        n_layer=settings.layers,
        n_embd=settings.width,
        n_head=settings.heads,
        vocab_size=settings.vocabulary,
        n_positions=max(settings.lengths),
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
    )
    models = make_models(config, settings.device, getattr(torch, settings.dtype))
    report(models, settings.lengths, settings.batch, settings.rounds)


if __name__ == "__main__":
    main()
