"""The differences in words: for which kinds of attention the interval excludes 0, whichever way it goes."""

import math
from collections.abc import Sequence

from experiments.momentum.differences import Gap


def difference_sentences(gaps: Sequence[Gap]) -> list[str]:
    """A sentence for each figure and what it is held against, and what the intervals are over.

    Args:
        gaps: all differences of an experiment.
    """
    pairs = dict.fromkeys((gap.figure, gap.against) for gap in gaps)
    sentences = [_sentence([gap for gap in gaps if (gap.figure, gap.against) == pair]) for pair in pairs]
    single = [gap for gap in gaps if len(gap.seeds) == 1]
    for against in dict.fromkeys(gap.against for gap in single):
        names = dict.fromkeys(gap.attention for gap in single if gap.against == against)
        sentences.append(
            f"Against {against} one seed alone is shared by {', '.join(names)}: no interval over seeds can be given; "
            "these are over blocks of text and queries, and say nothing of other seeds."
        )
    if len(gaps) > 1:
        sentences.append(f"Intervals are not widened for their number ({len(gaps)}).")
    return sentences


def _sentence(gaps: Sequence[Gap]) -> str:
    excluding = [f"{gap.attention} ({gap.difference:+.2f})" for gap in gaps if gap.excludes_zero]
    holding = [gap.attention for gap in gaps if not gap.excludes_zero and not math.isnan(gap.low)]
    without = [gap.attention for gap in gaps if math.isnan(gap.low)]
    parts = [
        f"the interval excludes 0 for {', '.join(excluding) or 'none'}",
        *([f"it holds 0 for {', '.join(holding)}"] if holding else []),
        *([f"there is none for {', '.join(without)}"] if without else []),
    ]
    return f"{gaps[0].figure[0].upper()}{gaps[0].figure[1:]} against {gaps[0].against}: {'; '.join(parts)}."
