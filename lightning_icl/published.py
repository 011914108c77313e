"""Published figures, seeds and learning rates: facts to compare with.

Tables of Dai et al. (arXiv 2212.10559) for two models, GPT dense 1.3B and 2.7B of fairseq, and six tasks, and of their
experiment on momentum attention; curves over layers of Deutch et al. (arXiv 2311.07772) for the smaller model.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

SIZES = ("1.3B", "2.7B")


@cache
def tables() -> dict[str, dict[str, dict[str, float]]]:
    """By model size and quantity, the published value of each task."""
    published: dict[str, dict[str, dict[str, float]]] = json.loads(
        Path(__file__).with_name("published.json").read_text(encoding="utf-8")
    )
    return published


@cache
def momentum_tables() -> dict[str, Any]:
    """Perplexity and in-context accuracy (%) of a GPT of 350M parameters, `vanilla` and `momentum` (section 5)."""
    published: dict[str, Any] = json.loads(
        Path(__file__).with_name("published_momentum.json").read_text(encoding="utf-8")
    )
    return published


def published_size(model: str) -> str | None:
    """`1.3B` or `2.7B` where a model's name says that it is one of the paper's, else None.

    >>> published_size("KoboldAI/fairseq-dense-1.3B")
    '1.3B'
    """
    # Owners and spellings differ between copies of the same model.
    name = model.lower().replace("_", "-")
    if "fairseq-dense" not in name or name.startswith("random:"):
        return None
    return next((size for size in SIZES if size.lower() in name), None)


def published_by_size(quantity: str, task: str) -> dict[str, float]:
    """A quantity of one task for each model size.

    >>> published_by_size("seed", "sst2")
    {'1.3B': 2, '2.7B': 7}
    """
    return {size: tables()[size][quantity][task] for size in SIZES if task in tables()[size][quantity]}


@cache
def layer_records() -> list[dict[str, Any]]:
    """The outputs that Deutch et al. stored for the 1.3B model with 32 demonstrations, one record a run.

    A record has `task`, `method` ("GD" or "causal GD"), `trained`, `seed`, `permutation` and `lr`; trained models have
    (24,) values per layer under `sim_aou`, `random_sim_aou` and `sim_am_difference`, untrained ones their means.
    Permutation 0 is Dai et al.'s own order; its mean SimAOU is theirs for the tasks that hold 32 demonstrations.
    """
    published: list[dict[str, Any]] = json.loads(
        Path(__file__).with_name("published_layers.json").read_text(encoding="utf-8")
    )
    return published


def published_layers(task: str, quantity: str) -> list[float] | None:
    """A quantity per layer of the 1.3B model as published, with the paper's order of demonstrations; None for none.

    >>> len(published_layers("sst2", "sim_aou"))
    24
    """
    for record in layer_records():
        if (record["task"], record["method"], record["permutation"]) == (task, "GD", 0) and record["trained"]:
            return list(record[quantity])
    return None
