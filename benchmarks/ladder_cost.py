"""What the rungs of the ladder of weight updates cost, as multiples of in-context learning's own look at the queries.

python -m benchmarks.ladder_cost                          # GPT-2 124M shape, float32, 1,000 demonstration tokens
python -m benchmarks.ladder_cost --device cuda --rounds 9

All take turns, so that the machine's drift meets them alike. The last line is what is asked for: all rungs together, at
most 1.1 times as many looks in context. Building the rungs, once a run, is a line of its own.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.fast_weights import seconds
from benchmarks.workload import WORKLOADS, Workload
from lightning_icl.models.capture import Capture
from lightning_icl.models.replacement import Updated
from lightning_icl.models.scope import Scope
from lightning_icl.weightupdate.ladder_observation import observe_condition
from lightning_icl.weightupdate.survey import Survey


def measure(workload: Workload, scope: Scope, device: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of a look at all queries by round: `icl`, every rung, and `building` of them from as many prompts."""
    model, demonstrations = workload.model().to(device), workload.demonstrations()  # type: ignore[arg-type]
    batches = [batch.to(device) for batch in workload.batches()]
    bos = len(demonstrations.bos)
    with Capture(model) as capture:
        prefix = capture.prefix(demonstrations.prefix_token_ids)
        assert prefix is not None

        def survey() -> Survey:
            return Survey(len(prefix.keys), bos, scope).of(capture, prefix, batches)

        def looks(name: str, replacement: Updated | None) -> None:
            for batch in batches:
                observe_condition(capture, batch, prefix, name=name, replacement=replacement)

        updates = survey().rungs()
        replacements: dict[str, Updated | None] = {"icl": None}
        replacements |= {name: Updated(own, bos, scope) for name, own in updates.items()}
        ways: dict[str, Callable[[], object]] = {
            name: partial(looks, name, replacement) for name, replacement in replacements.items()
        }
        ways["building"] = lambda: survey().rungs()
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                spent = seconds(way, device)
                if number:  # the first is a warm-up
                    taken[name].append(spent)
    return taken


def ratios(taken: dict[str, list[float]]) -> dict[str, float]:
    """Medians over rounds of each way's seconds in those of in-context learning, and of all rungs' mean: `rungs`."""
    rungs = [name for name in taken if name not in ("icl", "building")]
    relative = {name: [own / icl for own, icl in zip(taken[name], taken["icl"], strict=True)] for name in taken}
    by_round = zip(*(relative[name] for name in rungs), strict=True)
    relative["rungs"] = [statistics.fmean(of_round) for of_round in by_round]
    return {name: statistics.median(of_rounds) for name, of_rounds in relative.items()}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="gpt2", choices=WORKLOADS)
    parser.add_argument("--scope", default="probe", choices=["probe", "query", "alone"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    settings = parser.parse_args(words)
    found = ratios(measure(WORKLOADS[settings.size], settings.scope, settings.device, settings.rounds))
    for name, ratio in found.items():
        print(f"{name:14}{ratio:8.2f} looks in context")
    print(
        f"all rungs together: {found['rungs']:.2f} x (number of rungs) x one look in context; at most 1.10 is asked for"
    )


if __name__ == "__main__":
    main()
