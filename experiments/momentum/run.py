"""The whole experiment by one command; what is finished is not done again.

python -m experiments.momentum.run --size smoke
python -m experiments.momentum.run --size cpu --text FILES --validation-text FILE --data FOLDER
python -m experiments.momentum.run --size day --text FILES --search-text FILE --validation-text FILE

A size with a search begins with it and trains every kind of attention as it found; --search stops there.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.momentum.keeping import kept, train_once
from experiments.momentum.search import check_texts, search, search_table
from experiments.momentum.settings import SIZES, ExperimentSettings, model_folder, read_settings
from lightning_icl.errors import UserError
from lightning_icl.saving.workspace import held

MEASURED = "measured.json"
_WIDE = 120


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, print the tables and draw the curves."""
    parser = argparse.ArgumentParser(prog="python -m experiments.momentum.run", description=__doc__)
    parser.add_argument("--size", default="smoke", help=f"{', '.join(SIZES)}, or a YAML file of your own")
    parser.add_argument("--out", help="folder of the experiment; without it runs/momentum-SIZE")
    parser.add_argument("--text", help="text to train on, as `lightning-icl pretrain` takes it")
    parser.add_argument("--validation-text", help="held-out text")
    parser.add_argument("--search-text", help="held-out text that the search is judged on")
    parser.add_argument("--search", action="store_true", help="make the search alone")
    parser.add_argument("--data", help="folder with the tasks' rows")
    parser.add_argument("--tasks", help="tasks of in-context accuracy")
    given = parser.parse_args(arguments)
    path = Path(__file__).parent / f"{given.size}.yaml" if given.size in SIZES else Path(given.size)
    out = Path(given.out or f"runs/momentum-{path.stem}").expanduser()
    changes = {name: getattr(given, name) for name in ("text", "validation_text", "search_text", "data", "tasks")}
    try:
        run(read_settings(path, changes), out, search_alone=given.search)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(settings: ExperimentSettings, out: Path, *, search_alone: bool = False) -> None:
    """Everything that is not done yet, then the tables.

    Args:
        settings: of the experiment.
        out: its folder.
        search_alone: stop after the search.

    Raises:
        UserError: something that cannot be used, a folder of another experiment, or no matplotlib.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("The curves need matplotlib, which is not installed: pip install 'lightning-icl[plot]'.")
    if search_alone and not settings.search:
        raise UserError("--search: this size has none. Add the key 'search' to a settings file, as day.yaml has it.")
    from experiments.momentum.showing import show
    from lightning_icl.pretraining.run import quiet

    quiet()
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    check_texts(settings)
    _make_tokenizer(settings, out)
    _check_tasks(settings, out)
    found = search(settings, out, lambda words: console.rule(words, align="left"))
    if search_alone:
        console.print(search_table(settings, found)[0])
        return
    measured: dict[str, dict[int, dict[str, Any]]] = {}
    models = [(variant, seed) for variant in settings.variants for seed in variant.seeds]
    for number, (variant, seed) in enumerate(models, start=1):
        console.rule(f"{number} of {len(models)}: {variant.name}, seed {seed}", align="left")
        chosen = found[variant.name].chosen if variant.name in found else None
        if not train_once(settings.training(variant, seed, out, chosen)):
            console.print("trained before")
        measured.setdefault(variant.name, {})[seed] = _measured(settings, model_folder(out, variant.name, seed), out)
    show(settings, found, measured, out, console)


# What the numbers of `measured.json` depend on besides the model.
_ASKED = ("text", "validation_text", "lengths", "perplexity_tokens", "tasks", "data", "shots", "limit")


def _measured(settings: ExperimentSettings, folder: Path, out: Path) -> dict[str, Any]:
    from experiments.momentum.measure import measure

    asked = {name: getattr(settings, name) for name in _ASKED}
    return kept(folder / MEASURED, asked, lambda: measure(settings, folder, out))


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


if __name__ == "__main__":
    main()
