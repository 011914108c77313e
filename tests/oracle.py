"""The slow, independent computation of every number: loops in float64 over what plain transformers computes."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from plain_passes import Seen, Tuned, answer_scores, behind, fine_tune, look, probe_sequence
from scipy.stats import kendalltau
from transformers import PreTrainedModel

from lightning_icl.data.queries import Query
from lightning_icl.metrics._null import random_vectors
from lightning_icl.records import Demonstrations


def cos(one: np.ndarray, other: np.ndarray) -> float:
    lengths = math.sqrt((one @ one) * (other @ other))
    return float(one @ other / lengths) if lengths else math.nan


def moved(after: np.ndarray, before: np.ndarray, rounding: float = 1e-6) -> np.ndarray:
    """The difference; no length at all where it is no more than rounding, a share of the longer.

    In another prompt angles in float32 bring it to 1e-7 in every type; at the same positions it is the type's own.
    """
    difference = after - before
    small = rounding * max(math.sqrt(after @ after), math.sqrt(before @ before))
    return difference if math.sqrt(difference @ difference) > small else np.zeros_like(difference)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / math.sqrt(vector @ vector)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def tied(scores: np.ndarray) -> np.ndarray:
    """Ranks that treat float32 rounding as equality."""
    order = np.argsort(scores)
    ranks, rank = np.zeros(len(scores)), 0
    for before, after in pairwise(order):
        rank += scores[after] - scores[before] > 2e-6 * np.abs(scores).max()
        ranks[after] = rank
    return ranks


def padded(scores: Sequence[float], most: int) -> list[float]:
    """Scores of a query with fewer answers than another, NaN in the places it lacks."""
    return [*scores, *[math.nan] * (most - len(scores))]


def measure(
    model: PreTrainedModel,
    demonstrations: Demonstrations,
    queries: Sequence[Query],
    rate: float,
    windows: Sequence[int | None],
    tuned: Tuned | None = None,
    gap: int = 0,
) -> dict[str, np.ndarray]:
    """Every reported number, by name; per layer first. Without demonstrations queries stand `gap` positions further."""
    tuned = tuned or fine_tune(model, demonstrations, rate)
    views = {
        "zsl": (model, demonstrations.bos),
        "icl": (model, demonstrations.prefix_token_ids),
        "ft": (tuned.model, demonstrations.bos),
    }
    per_query: dict[str, list] = {}
    places = np.array([number >= 0 for number in demonstrations.token_example])
    for query in queries:
        seen, rows = {}, {}
        for name, (viewed, prefix) in views.items():
            ids, away = probe_sequence(prefix, query), 0 if name == "icl" else gap
            rows.setdefault("scores", {})[name] = answer_scores(viewed, prefix, query, away)
            seen[name] = look(viewed, ids, positions=behind(len(prefix), len(ids), away))
        own = len(probe_sequence((), query))
        values = _one_query(seen, own, tuned, places, demonstrations, windows, query.index)
        most = max(len(query.answers) for query in queries)
        values["answer_scores"] = np.array([padded(rows["scores"][name], most) for name in views])
        for name, value in values.items():
            per_query.setdefault(name, []).append(value)
    result = {name: np.array(values) for name, values in per_query.items()}
    result["losses"], result["update_norms"] = np.array(tuned.losses), np.array(tuned.update_norms)
    return result


def _one_query(
    seen: dict[str, Seen], own: int, tuned: Tuned, places: np.ndarray, demonstrations: Demonstrations,
    windows: Sequence[int | None], index: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    layers = len(seen["zsl"].outputs)
    own_rounding = 1e-13 if seen["zsl"].outputs[0].dtype == torch.float64 else 1e-6
    h = {name: [layer[-1].double().numpy() for layer in view.outputs] for name, view in seen.items()}
    a = {name: [layer[:, -1, -own:].numpy() for layer in view.scores] for name, view in seen.items()}
    nulls = {
        kind: random_vectors(torch.tensor([index]), (layers, len(h["zsl"][0])), kind=kind, salt=salt)[0]
        .double()
        .numpy()
        for kind, salt in (("gaussian", 0), ("uniform", 1))
    }
    columns: dict[str, list] = {}
    for layer in range(layers):
        z, i, f = h["zsl"][layer], h["icl"][layer], h["ft"][layer]
        learnt = partial(moved, rounding=own_rounding)
        in_context = moved(unit(i), unit(z))
        values: dict[str, object] = {
            "aou": cos(in_context, learnt(unit(f), unit(z))),
            "aou_raw": cos(moved(i, z), learnt(f, z)),
            "aou_random": cos(in_context, nulls["gaussian"][layer]),
            "aou_random_uniform": cos(in_context, nulls["uniform"][layer]),
        }
        heads = list(zip(a["zsl"][layer], a["icl"][layer], a["ft"][layer], strict=True))
        values["am"] = [cos(i, f) for z, i, f in heads]
        values["am_zsl"] = [cos(i, z) for z, i, f in heads]
        values["am_difference"] = [cos(moved(i, z), learnt(f, z)) for z, i, f in heads]
        weights = [tuple(softmax(scores) for scores in head) for head in heads]
        values["am_softmax"] = [cos(i, f) for z, i, f in weights]
        values["am_softmax_zsl"] = [cos(i, z) for z, i, f in weights]
        values["am_softmax_difference"] = [cos(moved(i, z), learnt(f, z)) for z, i, f in weights]
        c = seen["icl"].scores[layer][:, -1].sum(0).numpy()[: len(places)]
        q = seen["ft"].queries[layer][-1].double()
        by_query = (tuned.queries[layer].double() @ q).numpy()
        position = len(places) + own - 1
        reach = np.arange(len(places)) > position - (windows[layer] or position + 1)
        shown = reach[places]
        values["kendall"] = math.nan
        if shown.sum() > 1:
            values["kendall"] = kendalltau(tied(c[places][shown]), tied(by_query[shown])).statistic
        numbers = np.array(demonstrations.token_example)[places]
        examples = [number for number in sorted(set(numbers)) if (numbers[shown] == number).any()]
        totals = []
        for scores in (c[places], by_query) if examples else ():
            # Each with a maximum of its own: those of a trained model are a thousand nats apart.
            apart = [scores[shown][numbers[shown] == number] for number in examples]
            totals.append(tied(np.array([own.max() + math.log(np.exp(own - own.max()).sum()) for own in apart])))
        values["kendall_example"] = kendalltau(*totals).statistic if len(examples) > 1 else math.nan
        values["visible"] = shown.mean()
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in columns.items()}
