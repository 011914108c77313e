"""The moving average of values along branches: rows of query tokens that follow a shared prefix and fork into answers.

Axes: B batch, K value heads, T own tokens, D head width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_icl.attention.ema import eta_tensor, value_ema


def branched_ema(
    value: Float[Tensor, "batch kv_head token width"],
    eta: float | Float[Tensor, "#kv_head"],
    *,
    state: Float[Tensor, "1 kv_head width"] | None,
    branches: Int[Tensor, "batch token"] | None = None,
) -> tuple[Float[Tensor, "batch kv_head token width"], Float[Tensor, "batch kv_head width"]]:
    """The strict EMA of each own token over prefix, prompt and its own branch.

    Args:
        value: of the own tokens, prompt first, then one branch behind the other.
        eta: η, one for all heads or one for each.
        state: what the shared prefix leaves to the first own token; none without a prefix.
        branches: 0 at the prompt, the branch's number in a branch, -1 at padding; without it all is prompt.

    Returns:
        As `value_ema`: the EMA of every token, and the state behind the last.
    """
    batch = value.shape[0]
    # Expanded without a copy: the prompt's state is the same for every query.
    carried = None if state is None else state.expand(batch, -1, -1)
    if branches is None:
        return value_ema(value, eta, state=carried)
    # Each branch starts from nothing in one linear scan; what the prompt leaves to it is added below.
    restart = torch.diff(branches, prepend=branches[:, :1]) != 0
    ema, last = value_ema(value, eta, state=carried, restart=restart)
    rate = eta_tensor(eta, value.shape[1], like=value).to(last.dtype)
    rows, prompt_end = torch.arange(batch, device=value.device), (branches == 0).sum(1) - 1
    # Every branch forks behind the last prompt token, so one state per row serves all of them.
    at_fork = rate[:, None] * (ema + value)[rows, :, prompt_end].to(last.dtype)
    # `branches > 0` leaves out prompt tokens, which have that state already, and padding.
    passed = rate.view(-1, 1) ** _since(restart).unsqueeze(1) * (branches > 0).unsqueeze(1)
    return ema + (passed.unsqueeze(-1) * at_fork.unsqueeze(2)).to(ema.dtype), last


def _since(restart: Bool[Tensor, "batch token"]) -> Int[Tensor, "batch token"]:
    """How many tokens ago the last restart was."""
    index = torch.arange(restart.shape[1], device=restart.device).expand_as(restart)
    # The running maximum of the restarts' own indices is the latest restart.
    return index - (index * restart).cummax(1).values
