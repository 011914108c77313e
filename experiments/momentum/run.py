"""The whole experiment by one command; what is finished is not done again.

python -m experiments.momentum.run --size smoke
python -m experiments.momentum.run --size cpu --text FILES --validation-text FILE --data FOLDER
python -m experiments.momentum.run --size day --data FOLDER --text FILES --search-text FILE --validation-text FILE
python -m experiments.momentum.run --size further --start FOLDER --data FOLDER --text FILES --validation-text FILE

A size with a search begins with it and trains every kind of attention as it found; --search stops there. Started
several times, on one folder of one machine, the same command shares the work among its processes.
"""

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.mistakes import told_in_one_line
from experiments.momentum.cache import measured_once, text_record, train_once
from experiments.momentum.curves import need_matplotlib
from experiments.momentum.search import Found, check_texts, keep_search, search, search_table
from experiments.momentum.settings import SIZES, ExperimentSettings, Variant, model_folder, read_settings
from experiments.momentum.work_sharing import WAIT, Piece, run_shared
from lightning_icl.errors import UserError
from lightning_icl.saving.workspace import held

MEASURED = "measured.json"
_WIDE = 120
_FLAGS = ("start", "text", "validation_text", "search_text", "data", "tasks")


def main(words: list[str] | None = None) -> None:
    """Train, measure, print the tables and draw the curves."""
    parser = argparse.ArgumentParser(prog="python -m experiments.momentum.run", description=__doc__)
    parser.add_argument("--size", default="smoke", help=f"{', '.join(SIZES)}, or a YAML file of your own")
    parser.add_argument("--out", help="folder of the experiment; without it runs/momentum-SIZE")
    parser.add_argument("--start", help="folder of another run, whose models are trained further")
    parser.add_argument("--text", help="text to train on, as `lightning-icl pretrain` takes it")
    parser.add_argument("--validation-text", help="held-out text")
    parser.add_argument("--search-text", help="held-out text that the search is judged on")
    parser.add_argument("--search", action="store_true", help="make the search alone")
    parser.add_argument("--data", help="folder with the tasks' rows")
    parser.add_argument("--tasks", help="tasks of in-context accuracy")
    arguments = parser.parse_args(words)
    path = Path(__file__).parent / f"{arguments.size}.yaml" if arguments.size in SIZES else Path(arguments.size)
    out = Path(arguments.out or f"runs/momentum-{path.stem}").expanduser()
    changes = {name: getattr(arguments, name) for name in _FLAGS}
    with told_in_one_line():
        run(read_settings(path, changes), out, search_alone=arguments.search)


def run(settings: ExperimentSettings, out: Path, *, search_alone: bool = False) -> None:
    """Everything that is not done yet, then the tables.

    Args:
        settings: of the experiment.
        out: its folder.
        search_alone: stop after the search.

    Raises:
        UserError: something that cannot be used, a folder of another experiment, or no matplotlib.
    """
    need_matplotlib()
    if search_alone and not settings.search:
        raise UserError("--search: this size has none. Add the key 'search' to a settings file, as day.yaml has it.")
    from experiments.momentum.output import show
    from lightning_icl.pretraining.run import quiet

    quiet()
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    check_texts(settings)
    _check_start(settings)
    _make_tokenizer(settings, out)
    asked = _asked(settings, out)
    pieces = _searches(settings, out) + ([] if search_alone else _models(settings, out, asked))
    made = run_shared(pieces, out, lambda line: console.rule(line, align="left"))
    found = {variant.name: made[_search_name(variant)] for variant in settings.variants if settings.search}
    # Processes that share the work come out together, and write one after the other.
    with held(out, wait=WAIT):
        keep_search(settings, found, out)
        if search_alone:
            console.print(search_table(settings, found)[0])
            return
        measured = {
            variant.name: {seed: made[_model_name(variant, seed)] for seed in variant.seeds}
            for variant in settings.variants
        }
        show(settings, found, measured, out, console)


def _searches(settings: ExperimentSettings, out: Path) -> list[Piece]:
    """The search of every kind of attention; nothing where none is asked for."""

    def searched(variant: Variant, _: Mapping[str, Any]) -> Found:
        return search(settings, variant, out)

    variants = settings.variants if settings.search else ()
    return [Piece(_search_name(variant), partial(searched, variant)) for variant in variants]


def _models(settings: ExperimentSettings, out: Path, asked: Mapping[str, Any]) -> list[Piece]:
    """Training and measuring of every model, with what the search of its kind of attention has found."""

    def measured(variant: Variant, seed: int, made: Mapping[str, Any]) -> dict[str, Any]:
        chosen = made[_search_name(variant)].chosen if settings.search else None
        train_once(settings.training(variant, seed, out, chosen))
        return _measured(settings, model_folder(out, variant.name, seed), out, asked)

    return [
        Piece(
            _model_name(variant, seed),
            partial(measured, variant, seed),
            after=_search_name(variant) if settings.search else None,
        )
        for variant in settings.variants
        for seed in variant.seeds
    ]


def _search_name(variant: Variant) -> str:
    return f"search-{variant.name}"


def _model_name(variant: Variant, seed: int) -> str:
    return f"{variant.name}-seed{seed}"


def _measured(settings: ExperimentSettings, folder: Path, out: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    from experiments.momentum.measure import measure

    return measured_once(folder / MEASURED, asked, lambda: measure(settings, folder, out))


def _check_start(settings: ExperimentSettings) -> None:
    """Make sure that every model is there that is to be trained further."""
    for variant in settings.variants:
        for seed in variant.seeds:
            first = settings.first_model(variant, seed)
            if first is not None and not (first / "config.json").is_file():
                raise UserError(
                    f"start: {str(first)!r} holds no model to train further. Give --start the folder of a run that has "
                    f"finished {variant.name} with seed {seed}, or ask for other kinds of attention."
                )


def _make_tokenizer(settings: ExperimentSettings, out: Path) -> None:
    """One tokenizer for all models, so that perplexities can be compared."""
    from lightning_icl.pretraining.text import find_text
    from lightning_icl.pretraining.tokenizer import train_tokenizer

    if "tokenizer" in settings.pretrain or settings.start is not None:
        return
    with held(out, wait=WAIT) as space:
        if (out / "tokenizer").is_dir():
            return
        first = settings.training(settings.variants[0], settings.seeds[0], out)
        text = find_text(settings.text, "text")
        tokenizer = train_tokenizer(first.vocabulary, first.seed, text, generated=first.read_share < 1)
        with space.replacing(out / "tokenizer") as part:
            tokenizer.save_pretrained(part)


# Plain settings that the numbers of `measured.json` depend on.
_PLAIN = ("lengths", "perplexity_tokens", "tasks", "further_tasks", "shots", "limit")


def _asked(settings: ExperimentSettings, out: Path) -> dict[str, Any]:
    """What the numbers of `measured.json` depend on besides the model.

    Every task's rows are read for it, so that a missing file shows before hours of training.
    """
    from lightning_icl.data.module import ICLDataModule
    from lightning_icl.pretraining.text import find_text
    from lightning_icl.pretraining.tokenizer import named_tokenizer
    from lightning_icl.tasks.catalogue import resolve_tasks

    training = settings.training(settings.variants[0], settings.seeds[0], out)
    tokenizer = named_tokenizer(str(training.tokenizer))
    tasks_read = {}
    for task in resolve_tasks(",".join(filter(None, (settings.tasks, settings.further_tasks)))).values():
        folder = settings.rows_of(task.name)
        # One demonstration: this tokenizer is the experiment's, but how many fit is the model's to say.
        data = ICLDataModule(task, tokenizer, context_length=None, data=folder, shots=1, limit=settings.limit)
        tasks_read[task.name] = {name: data.fingerprints[name] for name in ("rows", "task")}
    texts = {
        name: text_record(find_text(getattr(settings, name), name, split))
        for name, split in (("text", "train"), ("validation_text", "validation"))
    }
    return {**{name: getattr(settings, name) for name in _PLAIN}, **texts, "tasks_read": tasks_read}


if __name__ == "__main__":
    main()
