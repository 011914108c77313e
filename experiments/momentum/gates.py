"""Does any head of a trained model want momentum? Gates, and η where it is learnt, are trained alone, from closed on.

python -m experiments.momentum.gates --init builtin --data FOLDER
python -m experiments.momentum.gates --init smollm2-135m --data FOLDER --steps 500

All other weights are frozen. Half of what is read is text, half few-shot documents. Arms: the sum and the mean with η
fixed, which train one number for each query head; as many gates on the previous token's value alone, the control; and
the mean with η learnt as well, one more number for each value head. Finished trainings are kept, and an interrupted one
goes on by the same command; those of other settings are refused, and what was measured by others is measured again.
`gates.md` has the tables and `gates.json` all numbers.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.momentum.keeping import kept, train_once
from experiments.momentum.summary import markdown
from lightning_icl.errors import UserError
from lightning_icl.file_names import input_path
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.results import to_json
from lightning_icl.saving.workspace import write_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLAIN, CONTROL = "plain", "previous"
ARMS: dict[str, dict[str, Any]] = {
    CONTROL: {"momentum_form": "previous"},
    "sum, η 0.5": {"momentum": 0.5},
    "mean, η 0.9": {"momentum": 0.9, "momentum_form": "mean"},
    "mean, η learnt from 0.5": {"momentum": 0.5, "momentum_form": "mean", "learn_momentum": True},
}
"""What each arm adds to attention behind gates that start at 0."""


def trainings(arguments: argparse.Namespace) -> dict[str, PretrainSettings]:
    """The training of each arm, on the same blocks in the same order."""
    folder = input_path(arguments.data, "--data")
    return {
        name: PretrainSettings(
            **arm,
            init=arguments.init,
            gate_init=0.0,
            only_momentum=True,
            out=str(arguments.out / name.replace(", ", "-").replace(" ", "-").replace("η", "eta")),
            seed=arguments.seed,
            text=f"{folder / 'tinyshakespeare'},{folder / 'wikitext2' / 'validation.txt'}",
            text_share=0.5,
            block=arguments.block,
            short_steps=0,
            short_block=arguments.block,
            batch=arguments.batch,
            steps=arguments.steps,
            learning_rate=arguments.rate,
            warmup=max(1, arguments.steps // 10),
            accelerator=arguments.accelerator,
        )
        for name, arm in ARMS.items()
    }


def figures(model: "PreTrainedModel", source: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Perplexity of WikiText-2's test part, accuracy zero-shot and in context, and what gates and η have become."""
    import math

    from experiments.momentum.measure import in_context_accuracy, learnt, packed, token_losses
    from experiments.momentum.settings import ExperimentSettings
    from lightning_icl.models.loading import load_tokenizer

    tokenizer, test = load_tokenizer(source), perplexity_text(arguments)
    settings = ExperimentSettings(
        pretrain={}, text=test, validation_text=test, tasks=arguments.tasks, limit=arguments.limit,
        accelerator=arguments.accelerator,
    )  # fmt: skip
    text = packed(test, "test", tokenizer, arguments.out, arguments.block)
    losses = token_losses(model, text, arguments.block, arguments.block, arguments.tokens)
    return {
        "perplexity": math.exp(float(losses.mean())),
        "block_loss": losses.mean(1).tolist(),
        "accuracy": in_context_accuracy(settings, model, tokenizer),
        **learnt(model),
    }


def measured(path: Path, model: str, record: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of a model, kept once they are measured.

    Args:
        path: where they are kept.
        model: its name or folder.
        record: what the model itself depends on.
        arguments: of the command.
    """
    from lightning_icl.models.finding import find_model
    from lightning_icl.models.loading import load_model
    from lightning_icl.pretraining.text import find_text

    def figures_now() -> dict[str, Any]:
        source = find_model(model)
        return figures(load_model(source), source, arguments)

    asked = {name: getattr(arguments, name) for name in ("tasks", "limit", "tokens", "block")}
    text = find_text(perplexity_text(arguments), "--data").record
    return kept(path, {**asked, "text": text, "model": record}, figures_now)


def perplexity_text(arguments: argparse.Namespace) -> str:
    """What perplexity is measured on."""
    return str(input_path(arguments.data, "--data") / "wikitext2" / "test.txt")


def tables(results: dict[str, dict[str, Any]]) -> str:
    """Every arm beside the plain model and the control, with intervals, and its gates by layer."""
    lines, layers = [], []
    for name, found in results.items():
        means = [100 * statistics.fmean(task[view] for task in found["accuracy"].values()) for view in ("zsl", "icl")]
        trained = sum(len(layer) for key in ("gate", "eta") for layer in found[key] or [])
        lines.append([name, str(trained), f"{found['perplexity']:.3f}", *(f"{mean:.1f}" for mean in means)])
        for layer, gates in enumerate(found["gate"] or []):
            etas = (found["eta"] or [[]] * (layer + 1))[layer]
            layers.append([name, str(layer), *(" ".join(f"{one:+.3f}" for one in part) for part in (gates, etas))])
    header = ["attention", "trained numbers", "perplexity", "ZSL (%)", "ICL (%)"]
    between = "Differences with 95% intervals over blocks of text and queries; they say nothing of other seeds"
    return "\n".join(
        (
            markdown("Gates and η trained alone", header, lines),
            markdown(between, ["attention", "against", "perplexity", "ICL (points)"], _differences(results)),
            markdown("Gates by layer", ["attention", "layer", "gate of each head", "η"], layers),
        )
    )


def _differences(results: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rows of every arm minus the plain model and minus the control, over what all have read."""
    from experiments.momentum.differences import drawn_accuracy, drawn_perplexity
    from lightning_icl.metrics.bootstrap import paired_difference

    figures = {name: (drawn_perplexity(found), drawn_accuracy(found)) for name, found in results.items()}
    lines = []
    for reference in (PLAIN, CONTROL):
        for name in (name for name in figures if name not in (PLAIN, reference)):
            gaps = map(paired_difference, figures[name], figures[reference])
            lines.append([name, reference, *(f"{gap[0]:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]" for gap in gaps)])
    return lines


def main(words: Sequence[str] | None = None) -> None:
    """Train every arm, measure it and the plain model, print and keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", default="builtin", help="the trained model")
    parser.add_argument("--data", required=True, help="folder with tinyshakespeare and wikitext2")
    parser.add_argument("--tasks", default="builtin", help="as `--task` of the command")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--rate", type=float, default=0.01, help="learning rate of gates and η")
    parser.add_argument("--tokens", type=int, default=32768, help="tokens that perplexity is measured on")
    parser.add_argument("--limit", type=int, default=128, help="queries of each task")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--out", type=Path, help="folder; without it runs/momentum-gates-INIT")
    arguments = parser.parse_args(words)
    arguments.out = arguments.out or Path(f"runs/momentum-gates-{Path(arguments.init).name}")
    try:
        run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(arguments: argparse.Namespace) -> None:
    """Everything that is not done yet, then the tables.

    Raises:
        UserError: something that cannot be used, or a folder of other settings.
    """
    from lightning_icl.pretraining.models import init_record
    from lightning_icl.pretraining.resume import is_finished
    from lightning_icl.pretraining.run import full_record, quiet

    quiet()
    arms = trainings(arguments)
    for training in arms.values():
        # Before anything is measured in a folder that is another's.
        is_finished(training, full_record(training))
    arguments.out.mkdir(parents=True, exist_ok=True)
    weights = init_record(next(iter(arms.values())))
    plain = {"init": arguments.init, "weights": weights}
    results = {PLAIN: measured(arguments.out / f"{PLAIN}.json", arguments.init, plain, arguments)}
    for name, training in arms.items():
        train_once(training)
        path = arguments.out / f"{Path(training.out).name}.json"
        results[name] = measured(path, training.out, full_record(training), arguments)
    write_text(arguments.out / "gates.json", to_json(results))
    write_text(arguments.out / "gates.md", tables(results))
    print(tables(results))


if __name__ == "__main__":
    main()
