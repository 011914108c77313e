"""The whole experiment by one command; what is finished is not done again.

python -m experiments.momentum.run --size smoke
python -m experiments.momentum.run --size cpu --text FILES --validation-text FILE --data FOLDER
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.momentum.settings import SIZES, ExperimentSettings, model_folder, read_settings
from lightning_icl.errors import UserError
from lightning_icl.results import to_json
from lightning_icl.saving.workspace import held, write_text

MEASURED = "measured.json"
_WIDE = 120


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, print the tables and draw the curves."""
    parser = argparse.ArgumentParser(prog="python -m experiments.momentum.run", description=__doc__)
    parser.add_argument("--size", default="smoke", help=f"{', '.join(SIZES)}, or a YAML file of your own")
    parser.add_argument("--out", help="folder of the experiment; without it runs/momentum-SIZE")
    parser.add_argument("--text", help="text to train on, as `lightning-icl pretrain` takes it")
    parser.add_argument("--validation-text", help="held-out text")
    parser.add_argument("--data", help="folder with the tasks' rows")
    parser.add_argument("--tasks", help="tasks of in-context accuracy")
    given = parser.parse_args(arguments)
    path = Path(__file__).parent / f"{given.size}.yaml" if given.size in SIZES else Path(given.size)
    out = Path(given.out or f"runs/momentum-{path.stem}").expanduser()
    changes = {name: getattr(given, name) for name in ("text", "validation_text", "data", "tasks")}
    try:
        run(read_settings(path, changes), out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(settings: ExperimentSettings, out: Path) -> None:
    """Everything that is not done yet, then the tables.

    Raises:
        UserError: something that cannot be used, a folder of another experiment, or no matplotlib.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("The curves need matplotlib, which is not installed: pip install 'lightning-icl[plot]'.")
    from lightning_icl.pretraining.resume import is_finished
    from lightning_icl.pretraining.run import full_record, pretrain, quiet

    quiet()
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    trainings = [
        (variant, seed, settings.training(variant, seed, out))
        for variant in settings.variants
        for seed in variant.seeds
    ]
    _make_tokenizer(settings, out)
    _check_tasks(settings, out)
    measured: dict[str, dict[int, dict[str, Any]]] = {}
    for number, (variant, seed, training) in enumerate(trainings, start=1):
        folder = model_folder(out, variant.name, seed)
        console.rule(f"{number} of {len(trainings)}: {variant.name}, seed {seed}", align="left")
        if is_finished(training, full_record(training)):
            console.print("trained before")
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            pretrain(training)
        measured.setdefault(variant.name, {})[seed] = _measured(settings, folder, out)
    _show(settings, measured, out, console)


# What the numbers of `measured.json` depend on besides the model.
_ASKED = ("text", "validation_text", "lengths", "perplexity_tokens", "tasks", "data", "shots", "limit")


def _measured(settings: ExperimentSettings, folder: Path, out: Path) -> dict[str, Any]:
    """What was measured before, if the same was asked; else it is measured now and kept."""
    from experiments.momentum.measure import measure

    path = folder / MEASURED
    asked = json.loads(json.dumps({name: value for name, value in vars(settings).items() if name in _ASKED}))
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["asked"] == asked:
            return dict(kept["found"])
    found = to_json(measure(settings, folder, out))
    write_text(path, to_json({"asked": asked, "found": json.loads(found)}))
    return dict(json.loads(found))


def _make_tokenizer(settings: ExperimentSettings, out: Path) -> None:
    """One tokenizer for all models, so that perplexities can be compared."""
    from lightning_icl.pretraining.text import find_text
    from lightning_icl.pretraining.tokenizer import train_tokenizer

    if "tokenizer" in settings.pretrain or (out / "tokenizer").is_dir():
        return
    first = settings.training(settings.variants[0], settings.seeds[0], out)
    text = find_text(settings.text, "text")
    tokenizer = train_tokenizer(first.vocabulary, first.seed, text, generated=first.read_share < 1)
    with held(out) as space, space.replacing(out / "tokenizer") as part:
        tokenizer.save_pretrained(part)


def _check_tasks(settings: ExperimentSettings, out: Path) -> None:
    """Read every task's rows once, so that a missing file shows before hours of training."""
    from lightning_icl.data.module import ICLDataModule
    from lightning_icl.pretraining.tokenizer import named_tokenizer
    from lightning_icl.tasks.catalogue import resolve_tasks

    training = settings.training(settings.variants[0], settings.seeds[0], out)
    tokenizer = named_tokenizer(str(training.tokenizer))
    data = None if settings.data is None else Path(settings.data)
    for task in resolve_tasks(settings.tasks).values():
        ICLDataModule(task, tokenizer, context_length=None, data=data, shots=1, limit=settings.limit)


def _show(settings: ExperimentSettings, measured: Any, out: Path, console: Console) -> None:
    """Print and keep the tables and curves."""
    from experiments.momentum.curves import draw_curves
    from experiments.momentum.summary import accuracies, comparison, markdown, perplexities, sweep
    from lightning_icl.published import momentum_tables

    momentum = f"eta-{settings.eta:g}"
    rows = accuracies(measured)
    same = set(rows) - {"mean"} == set(momentum_tables()["icl_tasks"])
    titles = (
        f"Perplexity (mean ± standard error over {len(settings.seeds)} seeds; difference paired by seed)",
        f"In-context accuracy (%), at most {settings.shots} demonstrations",
    )
    tables = [
        comparison(titles[0], perplexities(settings), measured, momentum, paper=True),
        comparison(titles[1], rows, measured, momentum, paper=same),
        sweep(settings, measured),
    ]
    texts = []
    for table, (header, *lines) in tables:
        console.print(table)
        texts.append(markdown(str(table.title), header, lines))
    write_text(out / "tables.md", "\n".join(texts))
    write_text(out / "results.json", to_json(measured))
    for picture in draw_curves(settings, measured, out):
        console.print(f"drawn: {picture}", highlight=False)
    console.print(f"Tables and numbers: {out / 'tables.md'}, {out / 'results.json'}", highlight=False)


if __name__ == "__main__":
    main()
