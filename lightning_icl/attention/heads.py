"""Key/value heads that groups of query heads share."""

from jaxtyping import Float
from torch import Tensor


def repeat_heads(
    states: Float[Tensor, "batch kv_head token width"], heads: int
) -> Float[Tensor, "batch head token width"]:
    """Keys or values with every key/value head repeated for its group of query heads."""
    group_size = heads // states.shape[1]
    return states if group_size == 1 else states.repeat_interleave(group_size, dim=1)
