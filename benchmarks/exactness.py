"""The largest deviation of every quantity from the slow oracle of the tests, for each supported architecture.

python -m benchmarks.exactness
"""

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
    torch.set_num_threads(1)  # the models are tiny
    warnings.filterwarnings("ignore")
    from exactness import deviations
    from tiny_models import VARIANTS

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
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
