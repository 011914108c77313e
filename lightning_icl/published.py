"""The paper's own figures, seeds and learning rates (Dai et al., arXiv 2212.10559): facts to compare with.

They cover two models, GPT dense 1.3B and 2.7B of fairseq, and six tasks; and the experiment on momentum attention.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

SIZES = ("1.3B", "2.7B")


@cache
def tables() -> dict[str, dict[str, dict[str, float]]]:
    """By model size and quantity, the published value of each task."""
    found: dict[str, dict[str, dict[str, float]]] = json.loads(
        Path(__file__).with_name("published.json").read_text(encoding="utf-8")
    )
    return found


@cache
def momentum_tables() -> dict[str, Any]:
    """Perplexity and in-context accuracy (%) of a GPT of 350M parameters, `vanilla` and `momentum` (section 5)."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("published_momentum.json").read_text(encoding="utf-8"))
    return found


def published_size(model: str) -> str | None:
    """`1.3B` or `2.7B` where a model's name says that it is one of the paper's, else None.

    >>> published_size("KoboldAI/fairseq-dense-1.3B")
    '1.3B'
    """
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
