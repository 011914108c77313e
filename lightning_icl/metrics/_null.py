"""Random vectors for baselines: the same for a query whatever batch or process it is seen in."""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Fewer numbers than this are drawn sooner than threads start.
_MANY = 1 << 20


def random_vectors(
    query_ids: Int[Tensor, " batch"], shape: tuple[int, ...], *, kind: Literal["gaussian", "uniform"], salt: int
) -> Float[Tensor, "batch ..."]:
    """One random tensor for each query, drawn on the CPU from a seed made of `salt` and the query's number.

    Args:
        query_ids: row numbers.
        shape: shape of each query's tensor.
        kind: standard normal, or uniform in [0, 1) as the authors' program draws (its mean is not zero).
        salt: tells apart the uses of the same query.

    Returns:
        (batch, *shape), float32, on the device of `query_ids`.

    >>> one = random_vectors(torch.tensor([7]), (2, 3), kind="gaussian", salt=0)
    >>> two = random_vectors(torch.tensor([5, 7]), (2, 3), kind="gaussian", salt=0)
    >>> torch.equal(one[0], two[1])
    True
    """
    # Threads are never in inference mode, and may not write into what was made in it.
    with torch.inference_mode(False):
        vectors = torch.empty(len(query_ids), *shape, dtype=torch.float32)
    fill = Tensor.normal_ if kind == "gaussian" else Tensor.uniform_

    def draw(vector: Tensor, query: int) -> None:
        # Seeded for each query, so that its draw does not depend on which queries came before it.
        generator = torch.Generator().manual_seed((salt + 1) * 1_000_000_007 + query)
        fill(vector, generator=generator)

    # One thread alone takes longer over the numbers of a large batch than a GPU over its forward passes.
    threads = torch.get_num_threads() if vectors.numel() > _MANY else 1
    with ThreadPoolExecutor(threads) as pool:
        list((pool.map if threads > 1 else map)(draw, vectors, query_ids.tolist()))
    # On the CPU: generators of other devices give other numbers for the same seed.
    return vectors.to(query_ids.device)
