"""Decayed sums over tokens: a chunked scan, linear in the number of tokens, and its exact adjoint.

Within a chunk a small triangular matrix of powers does the work; what a chunk leaves behind is carried on by the same
scan one level up. Only non-negative powers of η occur, so nothing can overflow. Axes: B batch, K value heads, T tokens,
N chunks, C tokens in a chunk, D head width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

# Tokens in a chunk: within one the cost is quadratic, across chunks it is a matrix product that hardware likes.
CHUNK = 64


def scan(
    inputs: Float[Tensor, "batch head token width"],
    eta: Float[Tensor, "#head"],
    state: Float[Tensor, "batch head width"],
    *,
    steps: Int[Tensor, "batch token"] | int = 1,
    cuts: Bool[Tensor, "batch token"] | None = None,
    lag: int = 0,
    reverse: bool = False,
) -> Float[Tensor, "batch head token width"]:
    """The states x_1 … x_T of `x_{t+1} = [not cut_t] η^{steps_t} x_t + η^lag u_t`.

    Args:
        inputs: u, in float32 or float64.
        eta: η of each head, or one for all; powers are taken in its type.
        state: x_1.
        steps: how many steps each token decays the state by; a number where it is the same for all.
        cuts: tokens behind which nothing from before them is left.
        lag: power of η on every input.
        reverse: the adjoint, from the last token to the first: x_2 … x_{T+1} of
            `x_t = [not cut_t] η^{steps_t} x_{t+1} + η^lag u_t`, with `state` as x_{T+1}.
    """
    tokens = inputs.shape[2]
    chunk = min(CHUNK, tokens)
    missing = -tokens % chunk
    if missing:
        # Zeros are added where the scan comes last, so that they decay no state.
        sides = (missing, 0) if reverse else (0, missing)
        inputs = pad(inputs, (0, 0, *sides))
        steps = steps if isinstance(steps, int) else pad(steps, sides)
        cuts = None if cuts is None else pad(cuts, sides)
    pieces = inputs.unflatten(2, (-1, chunk))
    passed = _sum_before(steps, chunk, inputs.device)
    cut = None if cuts is None else _sum_before(cuts.long(), chunk, inputs.device)
    mix, leave, enter = _powers(eta, passed, cut)
    if reverse:
        # The adjoint of a linear scan is its transpose: what flowed out of a chunk's end now flows in, and the reverse.
        mix, leave, enter = mix.mT, enter, leave
    # Applied here and not at each level, or inputs that cross chunks would be multiplied by it once per level.
    gain = eta.view(-1, 1, 1) ** lag
    # Powers are taken in the type of η (float64 where it is a number): rounded in float32 they drift over long decays.
    mix, leave, enter = (part.to(inputs.dtype) for part in (mix * gain.unsqueeze(-1), leave * gain, enter))
    states = mix @ pieces
    starts = state.unsqueeze(2)
    # The chunks' ends form a shorter sequence of the same recurrence, decayed by a whole chunk at each step.
    if pieces.shape[2] > 1:
        starts = scan(
            (leave.unsqueeze(-2) @ pieces).squeeze(-2),
            eta,
            state,
            steps=chunk * steps if isinstance(steps, int) else passed[..., -1],
            cuts=None if cut is None else cut[..., -1] > 0,
            reverse=reverse,
        )
    states = torch.addcmul(states, enter.unsqueeze(-1), starts.unsqueeze(3)).flatten(2, 3)
    return states[:, :, missing:] if reverse else states[:, :, :tokens]


def _sum_before(steps: Tensor | int, chunk: int, device: torch.device) -> Tensor:
    """(B or 1, N or 1, C + 1) of the steps in a chunk before each of its tokens, and of all."""
    if isinstance(steps, int):
        return steps * torch.arange(chunk + 1, device=device)[None, None]
    # The leading 0 turns sums up to each token into sums before it.
    return pad(steps.unflatten(1, (-1, chunk)).cumsum(-1), (1, 0))


def _powers(eta: Tensor, passed: Tensor, cut: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """How much of an input reaches each later token of its chunk, how much the chunk's end, and how much of the chunk's
    first state reaches each token: (…, N, C, C), (…, N, C), (…, N, C)."""  # fmt: skip
    chunk = passed.shape[-1] - 1
    eta = eta.view(-1, 1, 1)
    # Entry (i, j): steps between the end of token j and token i; rows 0..C-1 are tokens, row C is the chunk's end.
    exponents = (passed[..., :, None] - passed[..., None, 1:]).unsqueeze(1)
    # Strictly below the diagonal: a token's own value is not in its EMA.
    reached = torch.ones(chunk + 1, chunk, dtype=torch.bool, device=passed.device).tril(-1)
    entered = eta ** passed[..., :-1].unsqueeze(1)
    # An input reaches only what has seen as many cuts as itself: any cut in between wipes it out.
    if cut is not None:
        reached = reached & (cut[..., :, None] == cut[..., None, 1:]).unsqueeze(1)
        entered = entered * (cut[..., :-1] == 0).unsqueeze(1)
    # Clamped before the power, since η to a large negative exponent is inf and inf * 0 is nan.
    powers = eta.unsqueeze(-1) ** exponents.clamp(min=0) * reached
    return powers[..., :-1, :], powers[..., -1, :], entered
