"""How uncertain a figure over queries is: the Poisson bootstrap, streamed (Chamandy et al., Google, 2012).

In each replicate every query counts Poisson(1) times, so a replicate is a weighted sum and memory does not grow with
the queries. A query's weights are a function of its row number alone: batches and processes change nothing, and
replicate r of two figures saw the same queries, which pairs them without further work.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

REPLICATES = 1000
"""Replicates of a run."""
LEVEL = 0.95
"""Share of data sets whose interval is to hold the truth."""
_NORMAL_QUANTILE = 1.959963984540054  # of (1 + LEVEL) / 2

# Counter-based: any weight can be computed without drawing those before it.
# Splitmix64 (Steele, Lea and Flood, 2014) in wrapping int64; constants above 2^63 are written as negative numbers.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_BITS = 53  # as many as a float64 holds exactly


class Bootstrapped(NamedTuple):
    """A figure with its replicates; shapes are () for one number and (layer,) for a curve."""

    estimate: Float[Tensor, "*shape"]
    """The figure over the queries as they are."""
    replicates: Float[Tensor, "replicate *shape"]
    """The figure in each replicate; NaN where it is undefined there."""
    interval: Float[Tensor, "2 *shape"]
    """Lower and upper end; NaN where too few queries have a value to show any spread."""
    counted: bool = False
    """Whether it is a share of queries, whose interval is no narrower than its counts allow."""

    @property
    def standard_error(self) -> Tensor:
        """Standard deviation over the replicates that are defined; NaN where they all agree or the interval is NaN."""
        mean = self.replicates.nanmean(0)
        error = (self.replicates - mean).square().nanmean(0).sqrt()
        # No spread over replicates means too few queries, not certainty.
        return torch.where(torch.isfinite(self.interval[0]) & (error > 0), error, torch.nan)

    @property
    def undefined_share(self) -> Tensor:
        """Share of replicates in which the figure is undefined."""
        return torch.isnan(self.replicates).double().mean(0)


class Difference(NamedTuple):
    """A figure minus the same figure of another contrast, over the same queries."""

    difference: float
    low: float
    high: float
    p: float
    """Two-sided bootstrap p-value of no difference; at least 2 / (replicates + 1)."""


def uniform_bits(query_ids: Int[Tensor, " query"], count: int, *, seed: int = 0) -> Int[Tensor, "query count"]:
    """Numbers uniform in 0 .. 2^53 - 1, a function of the seed, the query and the column alone.

    >>> one, two = uniform_bits(torch.tensor([7]), 2), uniform_bits(torch.tensor([5, 7]), 3)
    >>> torch.equal(one[0], two[1, :2])
    True
    """
    column = torch.arange(1, count + 1, device=query_ids.device, dtype=torch.int64)
    # The query is mixed twice before the column is added: neighbouring row numbers must not give related streams.
    stream = _mixed(_mixed((query_ids.long() + 1) * _GAMMA) + seed)
    return _shifted(_mixed(stream[:, None] + column * _GAMMA), 64 - _BITS)


def _mixed(state: Tensor) -> Tensor:
    state = (state ^ _shifted(state, 30)) * _FIRST
    # Integer tensors wrap at 2^64, which is the arithmetic the generator is defined in.
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Shift right without the sign."""
    # PyTorch shifts signed numbers arithmetically; the mask drops the copies of the sign bit.
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def poisson_weights(
    query_ids: Int[Tensor, " query"], replicates: int = REPLICATES, *, seed: int = 0
) -> Float[Tensor, "query replicate"]:
    """How often each query counts in each replicate: Poisson(1), by inverse distribution function.

    Args:
        query_ids: row numbers.
        replicates: how many; more of them leave the first ones as they are.
        seed: of the whole bootstrap.

    Returns:
        (query, replicate), float64, on the device of `query_ids`.

    >>> poisson_weights(torch.tensor([0, 1]), 6)
    tensor([[0., 0., 0., 1., 1., 1.],
            [1., 0., 2., 0., 1., 0.]], dtype=torch.float64)
    """
    steps = torch.tensor(_poisson_steps(), device=query_ids.device)
    # Counting the steps that a uniform number passes inverts the distribution function.
    return torch.bucketize(uniform_bits(query_ids, replicates, seed=seed), steps, right=True).double()


def _poisson_steps() -> list[int]:
    """Distribution function of Poisson(1) at 0, 1, 2, ... in units of 2^-53, as far as it is below 1."""
    shares, total = [], 0.0
    # Beyond 17 the remaining probability is less than 2^-53.
    for number in range(18):
        total += math.exp(-1) / math.factorial(number)
        shares.append(round(total * (1 << _BITS)))
    return shares


def percentile_interval(replicates: Float[Tensor, "replicate *shape"]) -> Float[Tensor, "2 *shape"]:
    """The middle 95% of the replicates that are defined; NaN where none is.

    >>> percentile_interval(torch.arange(101.0))
    tensor([ 2.5000, 97.5000])
    """
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=replicates.dtype, device=replicates.device)
    # Replicates without a defined value (no corrected query drawn) say nothing of the spread.
    return torch.nanquantile(replicates, ends, dim=0)


def wilson_interval(part: Float[Tensor, "*shape"], whole: Float[Tensor, "*shape"]) -> Float[Tensor, "2 *shape"]:
    """Interval of a share of independent cases from its counts (Wilson, 1927); NaN for an empty whole.

    >>> wilson_interval(torch.tensor(4.0), torch.tensor(4.0))
    tensor([0.5101, 1.0000])
    """
    square = _NORMAL_QUANTILE**2
    share = part / whole
    centre = (share + square / (2 * whole)) / (1 + square / whole)
    reach = _NORMAL_QUANTILE * (share * (1 - share) / whole + square / (4 * whole**2)).sqrt() / (1 + square / whole)
    return torch.stack([centre - reach, centre + reach]).clamp(0.0, 1.0)


def bootstrapped_share(
    part: Float[Tensor, "*shape"],
    whole: Float[Tensor, "*shape"],
    part_replicates: Float[Tensor, "replicate *shape"],
    whole_replicates: Float[Tensor, "replicate *shape"],
) -> Bootstrapped:
    """A share of queries, `part / whole`, from its counts in the data and in each replicate.

    Where all or none of a few queries count, every replicate says 1 or 0 as if that were sure. The interval is
    therefore the percentile interval widened to Wilson's, which for many queries is the same.
    """
    replicates = part_replicates / whole_replicates
    by_replicates, by_counts = percentile_interval(replicates), wilson_interval(part, whole)
    # `fmin` and `fmax` pass over NaN: where one interval is undefined the other stands.
    interval = torch.stack([torch.fmin(by_replicates[0], by_counts[0]), torch.fmax(by_replicates[1], by_counts[1])])
    return Bootstrapped(part / whole, replicates, interval, counted=True)


def bootstrapped_accuracies(
    right: Bool[Tensor, "query condition"], query_ids: Int[Tensor, " query"], replicates: int = REPLICATES
) -> Bootstrapped:
    """Accuracy under each condition, (condition,), from whether each query was answered right."""
    counts, queries = right.double(), torch.tensor(float(len(right)), dtype=torch.float64)
    part = torch.zeros(replicates, right.shape[1], dtype=torch.float64)
    whole = torch.zeros(replicates, 1, dtype=torch.float64)
    # In pieces, since drawing weights takes some 30 kB a query; sums of whole numbers do not depend on them.
    for rows, ids in zip(counts.split(128), query_ids.split(128), strict=True):
        weights = poisson_weights(ids, replicates)
        part += weights.T @ rows
        whole += weights.sum(0)[:, None]
    return bootstrapped_share(counts.sum(0), queries.expand(right.shape[1]), part, whole.expand_as(part))


def paired_difference(one: Bootstrapped, other: Bootstrapped) -> Difference:
    """Test of two single figures over the same queries, replicate by replicate.

    Where few queries count, replicates understate the uncertainty of a share. Interval and p-value of shares are
    therefore never narrower and smaller than those made of the two shares' own intervals and their correlation (Zou and
    Donner, 2008).

    All NaN where either figure or its spread is unknown.
    """
    pairs = torch.stack([one.replicates, other.replicates])
    # A replicate in which one figure is undefined has no difference; dropping it for one alone would break the pairs.
    pairs = pairs[:, torch.isfinite(pairs).all(0)]
    defined = torch.isfinite(torch.cat([one.interval, other.interval])).all()
    if not defined or not pairs.shape[1]:
        return Difference(*[float("nan")] * 4)
    drawn, difference = pairs[0] - pairs[1], float(one.estimate - other.estimate)
    low, high = percentile_interval(drawn).tolist()
    # The observed data count as one more replicate (Davison and Hinkley, 1997), so p is never 0.
    below, above = (1 + int(side.sum()) for side in (drawn <= 0, drawn >= 0))
    p = min(1.0, 2 * min(below, above) / (len(drawn) + 1))
    if one.counted:
        down, up = _reaches(one, other, _correlation(pairs))
        low, high = min(low, difference - down), max(high, difference + up)
        # p asks how far the interval must be stretched to touch zero, so only the reach on that side counts.
        towards_zero = down if difference > 0 else up
        p = max(p, math.erfc(abs(difference) / towards_zero * _NORMAL_QUANTILE / math.sqrt(2))) if towards_zero else p
    return Difference(difference, low, high, p)


def _correlation(pairs: Tensor) -> float:
    """Of two rows of replicates; 0 where one does not vary."""
    centred = pairs - pairs.mean(1, keepdim=True)
    scale = centred.square().sum(1).prod().sqrt()
    return float((centred.prod(0).sum() / scale).clamp(-1, 1)) if scale > 0 else 0.0


def _reaches(one: Bootstrapped, other: Bootstrapped, correlation: float) -> tuple[float, float]:
    """How far the difference's interval reaches down and up from it, given those of its parts."""
    below, above = (one.estimate - one.interval[0]).item(), (one.interval[1] - one.estimate).item()
    other_below, other_above = (other.estimate - other.interval[0]).item(), (other.interval[1] - other.estimate).item()

    def joined(side: float, other_side: float) -> float:
        # Variance of a difference; clamped, as rounding may take it below 0 at a correlation of 1.
        return math.sqrt(max(0.0, side**2 + other_side**2 - 2 * correlation * side * other_side))

    # The difference is lowest where the first is low and the other high.
    return joined(below, other_above), joined(above, other_below)


def paired_differences(main: Mapping[str, Bootstrapped], control: Mapping[str, Bootstrapped]) -> dict[str, Difference]:
    """`paired_difference` of every single figure that both have, main minus control, by name."""
    shared = [name for name, figure in main.items() if name in control and figure.estimate.dim() == 0]
    return {name: paired_difference(main[name], control[name]) for name in shared}
