"""Forms of momentum: how much of the moving average of values each head adds to its attention.

Every form is the one sum of `value_ema` times a weight for each head, so padding, packing, a shared prefix and decoding
need no word of their own here. B batch, H query heads, K value heads, T tokens, D head width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_icl.attention.ema import check_eta
from lightning_icl.attention.form_names import Form, check_form

# A power of two scales without rounding, and v_{t−2}, a factor 2^-60 smaller, is below float64's rounding.
_PREVIOUS_ETA = 2.0**-60


@dataclass(frozen=True, kw_only=True)
class Momentum:
    """The momentum of one layer: the rate that values are summed with, and the weight of the sum."""

    eta: float | Tensor
    """η of the sum, one for all heads or one for each."""
    weight: float | Tensor
    """Factor of the sum: one for all heads, one for each value head, or one for each query head."""

    def summed(self, value: Tensor) -> Tensor:
        """Values in a type that has room for their sum at the smallest rate, which float16 has not."""
        smallest = not isinstance(self.eta, Tensor) and self.eta == _PREVIOUS_ETA
        return value.float() if smallest and value.dtype == torch.float16 else value

    def added(
        self, output: Float[Tensor, "batch head token width"], ema: Float[Tensor, "batch kv_head token width"]
    ) -> Float[Tensor, "batch head token width"]:
        """Attention's output with the weighted sum of its value head, in the output's type."""
        # By groups of query heads that share a value head, whose sum is then never repeated in memory.
        groups, ema = output.unflatten(1, (ema.shape[1], -1)), ema.unsqueeze(2)
        if isinstance(self.weight, Tensor):
            weight = _for_each(self.weight, output.shape[1]).view(*groups.shape[1:3], 1, 1)
            both = torch.addcmul(groups, ema, weight.to(output.device))
        else:
            both = torch.add(groups, ema, alpha=self.weight)
        return both.flatten(1, 2).to(output.dtype)


def momentum_of(form: Form, eta: float | Tensor, gate: float | Tensor | None = None) -> Momentum:
    """A layer's momentum.

    Args:
        form: `sum`, `mean` or `previous`, which reads no η.
        eta: η in (0, 1), one for all heads or one for each.
        gate: factor of each head on top; none is 1.

    Raises:
        UserError: an unknown form, or η does not lie strictly between 0 and 1.
    """
    if check_form(form) == "previous":
        eta = _PREVIOUS_ETA
    elif not isinstance(eta, Tensor):
        check_eta(eta)
    weight = 1.0 if form == "sum" else (1 - eta) / eta
    if gate is not None:
        weight = _times(weight, gate)
    return Momentum(eta=eta, weight=weight)


def _times(weight: float | Tensor, gate: float | Tensor) -> float | Tensor:
    """Both factors, where one may be of value heads and the other of as many or more query heads."""
    if isinstance(weight, Tensor) and isinstance(gate, Tensor):
        heads = max(weight.numel(), gate.numel())
        return _for_each(weight, heads) * _for_each(gate, heads)
    return weight * gate


def _for_each(factors: Tensor, heads: int) -> Tensor:
    """(heads,) from one factor for all, one for each group of neighbours, or one for each."""
    return factors.reshape(-1).repeat_interleave(heads // factors.numel())
