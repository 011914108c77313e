"""What gates trained alone have become and what they change, as Markdown: by arm, by difference, and by layer."""

import statistics
from collections.abc import Mapping
from typing import Any

from experiments.momentum.summary import Measured, markdown, mean_and_error

PLAIN, CONTROL = "plain", "previous"


def tables(results: Measured) -> str:
    """Every arm beside the plain model and the control, with intervals in words too, and its gates by layer.

    Args:
        results: figures of `gates` by arm and seed, those of the plain model under every seed.
    """
    from experiments.momentum.difference_sentences import difference_sentences

    header = ["attention", "trained numbers", "perplexity", "ZSL (%)", "ICL (%)"]
    lines = [[name, *_figures(by_seed)] for name, by_seed in results.items()]
    gaps = _gaps(results)
    (seeds, *_) = (gap.seeds for gap in gaps)
    over = (
        f"over {len(seeds)} seeds" if len(seeds) > 1 else "over blocks of text and queries; they say nothing of others"
    )
    between = [
        [name, against, *(f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]" for gap in pair)]
        for (name, against), pair in _pairs(gaps).items()
    ]
    return "\n".join(
        (
            markdown("Gates and η trained alone", header, lines),
            markdown(
                f"Differences with 95% intervals {over}",
                ["attention", "against", "perplexity", "ICL (points)"],
                between,
            ),
            "\n".join((*difference_sentences(gaps), "")),
            markdown("Least, mean and greatest gate of each layer's heads", *_layers(results)),
        )
    )


def heads(by_seed: Mapping[int, Mapping[str, Any]], name: str) -> list[list[float]]:
    """Gates or η of every layer and head, the mean over seeds; nothing where none is learnt.

    Args:
        by_seed: figures of an arm.
        name: `gate` or `eta`.
    """
    of_seeds = [found[name] or [] for found in by_seed.values()]
    return [
        [statistics.fmean(values) for values in zip(*layers, strict=True)] for layers in zip(*of_seeds, strict=True)
    ]


def _figures(by_seed: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Trained numbers, perplexity, and accuracy zero-shot and in context, with standard errors where seeds differ."""
    trained = sum(len(layer) for name in ("gate", "eta") for layer in heads(by_seed, name))
    perplexities = [found["perplexity"] for found in by_seed.values()]
    views = [[_accuracy(found, view) for found in by_seed.values()] for view in ("zsl", "icl")]
    return [str(trained), _with_error(perplexities, 3), *(_with_error(view, 1) for view in views)]


def _with_error(values: list[float], digits: int) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f} ± {error:.{digits}f}" if error > 0 else f"{mean:.{digits}f}"


def _accuracy(found: Mapping[str, Any], view: str) -> float:
    """Mean over tasks, in %."""
    return 100 * statistics.fmean(task[view] for task in found["accuracy"].values())


def _gaps(results: Measured) -> list[Any]:
    """Every arm minus the plain model and minus the control: perplexity, and in-context accuracy."""
    from experiments.momentum.differences import Compared, drawn_accuracy, drawn_perplexity, gap

    figures = (
        Compared("perplexity", lambda found: float(found["perplexity"]), drawn_perplexity),
        Compared("ICL", lambda found: _accuracy(found, "icl"), drawn_accuracy),
    )
    return [
        gap(figure, name, reference, tuple(by_seed), results)
        for reference in (PLAIN, CONTROL)
        for name, by_seed in results.items()
        if name not in (PLAIN, reference)
        for figure in figures
    ]


def _pairs(gaps: list[Any]) -> dict[tuple[str, str], list[Any]]:
    pairs: dict[tuple[str, str], list[Any]] = {}
    for gap in gaps:
        pairs.setdefault((gap.attention, gap.against), []).append(gap)
    return pairs


def _layers(results: Measured) -> tuple[list[str], list[list[str]]]:
    """Header and rows: gates of each arm, and η where it is learnt, as least, mean and greatest of a layer's heads."""
    columns = {
        f"{label}: {name}": values
        for name, by_seed in results.items()
        for key, label in (("gate", "gate"), ("eta", "η"))
        if (values := heads(by_seed, key))
    }
    rows = zip(*columns.values(), strict=True)
    cells = [[f"{min(one):+.3f} / {statistics.fmean(one):+.3f} / {max(one):+.3f}" for one in row] for row in rows]
    return ["layer", *columns], [[str(layer), *row] for layer, row in enumerate(cells)]
