"""The largest deviation of every quantity from the slow oracle of the tests, for each supported architecture.

python -m benchmarks.exactness
python -m benchmarks.exactness --model gemma-3-270m --data FOLDER --task sst2 --shots 20 --limit 2
"""

import argparse
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

GROUPS = {
    "scores": ("answer_scores",),
    "fine-tuning": ("losses", "update_norms"),
    "SimAOU": ("aou", "aou_raw"),
    "SimAM": ("am", "am_zsl", "am_softmax", "am_softmax_zsl"),
    "SimAM differences": ("am_difference", "am_softmax_difference"),
    "Kendall": ("kendall", "kendall_example"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="A pretrained model, in float64; without it tiny ones of every architecture.")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--limit", type=int, default=2)
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if chosen.model is None:
        _every_architecture()
    else:
        _pretrained(chosen)


def _pretrained(chosen: argparse.Namespace) -> None:
    from pretrained import pretrained_deviations

    tokens, found = pretrained_deviations(
        chosen.model, chosen.task, chosen.data, shots=chosen.shots, limit=chosen.limit
    )
    print(f"{chosen.model}, float64, a prompt of {tokens} tokens, {chosen.limit} queries: largest deviations")
    for name, value in found.items():
        print(f"{name}: {value:.1e}")


def _every_architecture() -> None:
    torch.set_num_threads(1)  # the models are tiny
    from exactness import deviations
    from tiny_models import VARIANTS

    print("| architecture | " + " | ".join(GROUPS) + " |")
    print("|---|" + "---|" * len(GROUPS))
    for variant in VARIANTS:
        worst = dict.fromkeys(GROUPS, 0.0)
        for probe_token in ("prompt", "answer"):
            for answers in ("single", "multi"):
                with tempfile.TemporaryDirectory() as folder:
                    found = deviations(variant, probe_token, answers, Path(folder))
                for group, names in GROUPS.items():
                    worst[group] = max(worst[group], *(found[name] for name in names))
        print(f"| {variant} | " + " | ".join(f"{value:.0e}" for value in worst.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
