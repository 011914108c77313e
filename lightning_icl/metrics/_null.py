"""Random vectors for baselines: the same for a query whatever batch or process it is seen in."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
    generator = torch.Generator()
    draw = torch.randn if kind == "gaussian" else torch.rand
    drawn = []
    for query in query_ids.tolist():
        # Reseeded for each query, so that its draw does not depend on which queries came before it.
        generator.manual_seed((salt + 1) * 1_000_000_007 + query)
        drawn.append(draw(shape, generator=generator, dtype=torch.float32))
    # On the CPU: generators of other devices give other numbers for the same seed.
    return torch.stack(drawn).to(query_ids.device) if drawn else torch.zeros(0, *shape, dtype=torch.float32)
