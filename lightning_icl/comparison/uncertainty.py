"""What `results.json` says of uncertainty: intervals over queries, and paired tests against other contrasts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_icl.metrics.bootstrap import (
    LEVEL,
    REPLICATES,
    Bootstrapped,
    bootstrapped_accuracies,
    paired_differences,
)
from lightning_icl.probing.contrast import MAIN
from lightning_icl.probing.findings import Prediction, best_answer


def uncertainty(
    bootstraps: Mapping[str, Mapping[str, Bootstrapped]], predictions: Sequence[Prediction]
) -> dict[str, Any]:
    """Parts of `results.json`.

    Args:
        bootstraps: every figure of every contrast, by contrast and by dotted name.
        predictions: of all queries, whose accuracies get intervals too.

    Returns:
        `intervals`: [low, high] by dotted name, for the main contrast and for the accuracy of every condition;
        curves have a list for each end.
        `bootstrap`: how they were made, standard errors, and the share of replicates in which a figure was undefined
        where there are any.
        With further contrasts, `contrast_intervals`: their intervals by name; `paired`: by name, main minus the
        contrast for every figure.
    """
    figures = accuracies(predictions) | dict(bootstraps.get(MAIN, {}))
    # A curve's replicates are not counted: its layers have no figure of their own to report.
    undefined = {name: float(figure.undefined_share) for name, figure in _single(figures).items()}
    content: dict[str, Any] = {
        "intervals": _intervals(figures),
        "bootstrap": {
            "replicates": REPLICATES,
            "level": LEVEL,
            "standard_error": {name: float(figure.standard_error) for name, figure in _single(figures).items()},
            "undefined_share": {name: share for name, share in undefined.items() if share > 0},
        },
    }
    others = {name: figures for name, figures in bootstraps.items() if name != MAIN}
    if others:
        content["contrast_intervals"] = {name: _intervals(own) for name, own in others.items()}
    if others and MAIN in bootstraps:
        content["paired"] = {
            name: {key: test._asdict() for key, test in paired_differences(bootstraps[MAIN], own).items()}
            for name, own in others.items()
        }
    return content


def accuracies(predictions: Sequence[Prediction]) -> dict[str, Bootstrapped]:
    """The accuracy of every condition as `accuracy.NAME`, and of the answer that is right most often as
    `accuracy.majority`, over the same replicates as all other figures.
    """
    if not predictions:
        return {}
    names = list(predictions[0].scores)
    gold = [query.gold for query in predictions]
    # Sorted first, so that of equally frequent answers the smaller number wins, as in `majority`.
    usual = max(sorted(set(gold)), key=gold.count)
    right = [
        [*(best_answer(query.scores[name]) == query.gold for name in names), query.gold == usual]
        for query in predictions
    ]
    bootstrapped = bootstrapped_accuracies(torch.tensor(right), torch.tensor([query.index for query in predictions]))
    return {
        f"accuracy.{name}": Bootstrapped(
            estimate=bootstrapped.estimate[column],
            replicates=bootstrapped.replicates[:, column],
            interval=bootstrapped.interval[:, column],
            counted=bootstrapped.counted,
        )
        for column, name in enumerate([*names, "majority"])
    }


def _single(figures: Mapping[str, Bootstrapped]) -> dict[str, Bootstrapped]:
    return {name: figure for name, figure in figures.items() if figure.estimate.dim() == 0}


def _intervals(figures: Mapping[str, Bootstrapped]) -> dict[str, list[Any] | None]:
    """[low, high] by name, a curve's ends over layers; None in place of a figure's interval that is unknown."""
    return {
        name: figure.interval.tolist() if figure.estimate.dim() or torch.isfinite(figure.interval).all() else None
        for name, figure in figures.items()
    }
