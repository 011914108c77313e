"""Every kind of attention against plain attention and against the control, with 95% intervals.

Models of several seeds are compared seed by seed, by Student's t. Those of one seed are compared on the same blocks of
text and the same queries, by the paired bootstrap: such an interval says what other text would change, not other seeds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from rich.table import Table
from scipy import stats

from experiments.momentum.settings import ExperimentSettings
from experiments.momentum.summary import Figure, Measured, accuracies, mean_and_error, perplexities, titled
from lightning_icl.metrics.bootstrap import (
    LEVEL,
    Bootstrapped,
    bootstrapped_accuracies,
    paired_difference,
    percentile_interval,
    poisson_weights,
)

Drawn = Callable[[Mapping[str, Any]], Bootstrapped]
"""A figure of what was measured on one model, with its bootstrap replicates."""


class Compared(NamedTuple):
    """A figure that kinds of attention are compared by."""

    name: str
    of: Figure
    drawn: Drawn


class Gap(NamedTuple):
    """A figure of one kind of attention minus that of another."""

    attention: str
    against: str
    figure: str
    difference: float
    low: float
    high: float
    seeds: tuple[int, ...]
    """Seeds that both have. With one of them the interval is over what it was measured on."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0; not where there is none."""
        return self.low > 0 or self.high < 0


def compared(settings: ExperimentSettings, measured: Measured) -> list[Compared]:
    """Perplexity at the longest length, and the mean in-context accuracy of the tasks in %."""
    longest = str(max(settings.lengths))
    return [
        Compared(f"perplexity {longest}", perplexities(settings)[longest], drawn_perplexity),
        Compared("ICL mean", accuracies(measured)["mean"], drawn_accuracy),
    ]


def drawn_perplexity(found: Mapping[str, Any]) -> Bootstrapped:
    """Perplexity at the longest length over its blocks of text."""
    losses = torch.tensor(found["block_loss"], dtype=torch.float64)
    weights = poisson_weights(torch.arange(len(losses)))
    replicates = ((losses @ weights) / weights.sum(0)).exp()
    # One block has no spread, and would pass for certain.
    interval = percentile_interval(replicates) if len(losses) > 1 else torch.full((2,), math.nan)
    return Bootstrapped(losses.mean().exp(), replicates, interval)


def drawn_accuracy(found: Mapping[str, Any]) -> Bootstrapped:
    """Mean in-context accuracy of the tasks in %, over the queries of each."""
    parts, start = [], 0
    for task in found["accuracy"].values():
        right = torch.tensor(task["icl_right"], dtype=torch.bool)
        # Row numbers go on from task to task, since weights are a function of them and tasks are independent.
        parts.append(bootstrapped_accuracies(right[:, None], torch.arange(start, start + len(right))))
        start += len(right)
    replicates = 100 * torch.stack([part.replicates[:, 0] for part in parts]).mean(0)
    estimate = 100 * torch.stack([part.estimate[0] for part in parts]).mean()
    return Bootstrapped(estimate, replicates, percentile_interval(replicates))


def interval_over_seeds(differences: Sequence[float]) -> tuple[float, float]:
    """Student's interval of the mean of paired differences; NaN for fewer than two.

    >>> [round(end, 3) for end in interval_over_seeds([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    mean, error = mean_and_error(differences)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1)) * error
    return mean - reach, mean + reach


def differences(settings: ExperimentSettings, measured: Measured) -> list[Gap]:
    """Every kind of attention minus plain attention, and minus the control where the experiment has one."""
    control = [variant.name for variant in settings.variants if variant.changes.get("momentum_form") == "previous"]
    gaps = []
    for reference in ("vanilla", *control[:1]):
        for name, one in measured.items():
            seeds = tuple(seed for seed in one if seed in measured[reference])
            if name != reference and seeds:
                gaps += [gap(figure, name, reference, seeds, measured) for figure in compared(settings, measured)]
    return gaps


def gap(figure: Compared, name: str, reference: str, seeds: tuple[int, ...], measured: Measured) -> Gap:
    """One difference, over the seeds that both have; of a single one by the paired bootstrap."""
    one, other = measured[name], measured[reference]
    values = [figure.of(one[seed]) - figure.of(other[seed]) for seed in seeds]
    if len(seeds) > 1:
        ends = interval_over_seeds(values)
    else:
        drawn = paired_difference(figure.drawn(one[seeds[0]]), figure.drawn(other[seeds[0]]))
        ends = (drawn.low, drawn.high)
    return Gap(name, reference, figure.name, mean_and_error(values)[0], *ends, seeds)


def difference_table(gaps: Sequence[Gap]) -> tuple[Table, list[list[str]]]:
    """A line for each two kinds of attention: difference and interval of every figure."""
    figures = list(dict.fromkeys(gap.figure for gap in gaps))
    lines = []
    for attention, against in dict.fromkeys((gap.attention, gap.against) for gap in gaps):
        pair = [gap for gap in gaps if (gap.attention, gap.against) == (attention, against)]
        cells = [f"{gap.difference:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]" for gap in pair]
        seeds = pair[0].seeds
        over = f"{len(seeds)} seeds" if len(seeds) > 1 else f"text and queries, seed {seeds[0]}"
        lines.append([attention, against, *cells, over])
    return titled("Differences with 95% intervals", ["attention", "against", *figures, "interval over"], lines)
