"""Does any head of a trained model want momentum? Gates, and η where it is learnt, are trained alone, from closed on.

python -m experiments.momentum.gates --init builtin --data FOLDER
python -m experiments.momentum.gates --init smollm2-135m --data FOLDER --steps 500 --seeds 1 2 3

All other weights are frozen. Half of what is read is text, half few-shot documents. Arms: the sum and the mean with η
fixed, which train one number for each query head; as many gates on the previous token's value alone, the control; and
the mean with η learnt as well, one more number for each value head. Finished trainings are kept, and an interrupted one
goes on by the same command; those of other settings are refused, and what was measured by others is measured again.
Started several times, the same command shares the trainings among its processes. `gates.md` has the tables, `gates.png`
gates and η by layer, and `gates.json` all numbers.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.mistakes import told_in_one_line
from experiments.momentum.cache import measured_once, text_record, train_once
from experiments.momentum.curves import need_matplotlib
from experiments.momentum.gate_tables import CONTROL, PLAIN, tables
from experiments.momentum.work_sharing import WAIT, Piece, run_shared
from lightning_icl.file_names import input_path
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.results import to_json
from lightning_icl.saving.workspace import held, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ARMS: dict[str, dict[str, Any]] = {
    CONTROL: {"momentum_form": "previous"},
    "sum η 0.5": {"momentum": 0.5},
    "mean η 0.9": {"momentum": 0.9, "momentum_form": "mean"},
    "mean η learnt from 0.5": {"momentum": 0.5, "momentum_form": "mean", "learn_momentum": True},
}
"""What each arm adds to attention behind gates that start at 0."""


def trainings(arguments: argparse.Namespace, seed: int) -> dict[str, PretrainSettings]:
    """The training of each arm with a seed, on the same blocks in the same order."""
    folder = input_path(arguments.data, "--data")
    return {
        name: PretrainSettings(
            **arm,
            init=arguments.init,
            gate_init=0.0,
            only_momentum=True,
            out=str(arguments.out / f"{name.replace(' ', '-').replace('η', 'eta')}-seed{seed}"),
            seed=seed,
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

    from experiments.momentum.measure import device, in_context_accuracy, learnt, packed, token_losses
    from experiments.momentum.settings import ExperimentSettings
    from lightning_icl.models.loading import load_tokenizer

    tokenizer, test = load_tokenizer(source), perplexity_text(arguments)
    settings = ExperimentSettings(
        pretrain={}, text=test, validation_text=test, tasks=arguments.tasks, limit=arguments.limit,
        accelerator=arguments.accelerator,
    )  # fmt: skip
    text = packed(test, "test", tokenizer, arguments.out, arguments.block)
    model.to(device(settings))  # type: ignore[arg-type]
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
    text = text_record(find_text(perplexity_text(arguments), "--data"))
    return measured_once(path, {**asked, "text": text, "model": record}, figures_now)


def perplexity_text(arguments: argparse.Namespace) -> str:
    """What perplexity is measured on."""
    return str(input_path(arguments.data, "--data") / "wikitext2" / "test.txt")


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
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the order of what is read")
    parser.add_argument("--accelerator", default="auto", help="kind of device that trains and measures")
    parser.add_argument("--out", type=Path, help="folder; without it runs/momentum-gates-INIT")
    arguments = parser.parse_args(words)
    arguments.out = arguments.out or Path(f"runs/momentum-gates-{Path(arguments.init).name}")
    with told_in_one_line():
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Everything that is not done yet, then the tables.

    Raises:
        UserError: something that cannot be used, or a folder of other settings.
    """
    from experiments.momentum.gate_pictures import draw_gates
    from lightning_icl.pretraining.resume import is_finished
    from lightning_icl.pretraining.run import full_record, quiet

    need_matplotlib()
    quiet()
    arms = {(name, seed): one for seed in arguments.seeds for name, one in trainings(arguments, seed).items()}
    for training in arms.values():
        # Before anything is measured in a folder that is another's.
        is_finished(training, full_record(training))
    arguments.out.mkdir(parents=True, exist_ok=True)
    pieces = {key: Piece(Path(one.out).name, partial(_of_arm, arguments, one)) for key, one in arms.items()}
    made = run_shared([Piece(PLAIN, partial(_of_plain, arguments)), *pieces.values()], arguments.out, print)
    # No seed has a part in the plain model.
    results = {PLAIN: dict.fromkeys(arguments.seeds, made[PLAIN])}
    for (name, seed), piece in pieces.items():
        results.setdefault(name, {})[seed] = made[piece.name]
    with held(arguments.out, wait=WAIT):
        write_text(arguments.out / "gates.json", to_json(results))
        write_text(arguments.out / "gates.md", tables(results))
        draw_gates(results, arguments.out / "gates.png")
    print(tables(results))


def _of_plain(arguments: argparse.Namespace, _: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of the model as it is."""
    from lightning_icl.pretraining.models import init_record

    weights = init_record(trainings(arguments, arguments.seeds[0])[CONTROL])
    record = {"init": arguments.init, "weights": weights}
    return measured(arguments.out / f"{PLAIN}.json", arguments.init, record, arguments)


def _of_arm(arguments: argparse.Namespace, training: PretrainSettings, _: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of one training, which is made where it has not been."""
    from lightning_icl.pretraining.run import full_record

    train_once(training)
    path = arguments.out / f"{Path(training.out).name}.json"
    return measured(path, training.out, full_record(training), arguments)


if __name__ == "__main__":
    main()
