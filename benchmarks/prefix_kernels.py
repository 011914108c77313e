"""Which kernel serves attention to a shared prefix best on a GPU: seconds, rate and deviation of each.

    python -m benchmarks.prefix_kernels                       # the 1.3B shape: 20,480 tokens, a prefix of 1,600
    python -m benchmarks.prefix_kernels --tokens 64 --prefix 32 --heads 2 --rounds 1      # whether it runs

Kernels take turns; those that the device lacks are left out by name. The first call at a shape is timed after one at
another shape, so that it holds what every new shape costs and not the loading of libraries. Deviations from float64 are
those of the first tokens.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.rounds import Ratio, measure, timed
from lightning_icl.attention.kernels import masked_attention_with_lse

Kernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def flash(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, False, False)[:2]


def efficient(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[:2]


def cudnn(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, True)[:2]


def kernels() -> dict[str, Kernel]:
    """Every candidate by name."""
    compiled = torch.compile(partial(flex_attention, return_lse=True), dynamic=False)

    def flex(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        output, lse = compiled(query, key, value)
        return output, lse

    products = partial(masked_attention_with_lse, scaling=0.125)
    return {"flash": flash, "cuDNN": cudnn, "memory-efficient": efficient, "flex": flex, "products": products}


def main(words: Sequence[str] | None = None) -> None:
    """Print a line for each kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20_480, help="of all queries of a batch")
    parser.add_argument("--prefix", type=int, default=1600)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args(words)
    torch.manual_seed(0)
    shapes = arguments.tokens, arguments.prefix, arguments.prefix
    query, key, value = (
        torch.randn(1, size, arguments.heads, 64, dtype=getattr(torch, arguments.dtype), device=arguments.device)
        .transpose(1, 2)
        for size in shapes
    )  # fmt: skip
    few = query[:, :, :64].double()
    exact = masked_attention_with_lse(few, key.double(), value.double(), scaling=0.125)
    first, deviations, candidates = {}, {}, {}
    for name, kernel in kernels().items():
        try:
            kernel(query[:, :, :-8], key, value)
            first[name] = timed(partial(kernel, query, key, value))
            made = kernel(query, key, value)
        # Operations that a device lacks and shapes that a compiler refuses alike.
        except RuntimeError as error:
            print(f"{name}: not on this device ({str(error).splitlines()[0][:80]})")
            continue
        made = made[0][:, :, :64], made[1].reshape(1, arguments.heads, -1)[:, :, :64]
        deviations[name] = [float((one - other).abs().max()) for one, other in zip(made, exact, strict=True)]
        candidates[name] = partial(kernel, query, key, value)
    seconds = measure(candidates, arguments.rounds)
    work = [4 * arguments.tokens * arguments.prefix * arguments.heads * 64 / 1e12] * arguments.rounds
    for name, taken in seconds.items():
        rate = Ratio.of(name, work, taken)
        ahead = Ratio.of(name, seconds[next(iter(seconds))], taken)
        output, lse = deviations[name]
        print(
            f"{name:16} {rate.median:7.1f} TFLOP/s ({rate.low:.1f} – {rate.high:.1f}), {ahead.median:.2f} × the first; "
            f"first call {first[name]:.2f} s; output off by {output:.1e}, log-sum-exp by {lse:.1e}"
        )


if __name__ == "__main__":
    main()
