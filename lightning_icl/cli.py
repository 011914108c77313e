"""The command line: commands and flags, nothing else.

Flags and their help are the fields of settings classes and the sentences under them. Everything heavy is imported by
the command that needs it, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_icl._version import __version__
from lightning_icl.comparison.settings import CompareSettings, ValidateSettings
from lightning_icl.console import lasting_output
from lightning_icl.dualform.settings import DualSettings
from lightning_icl.errors import UserError, did_you_mean, on_screen, shown
from lightning_icl.file_names import input_path
from lightning_icl.flags import Parser, add_flags, offer_words, read_settings
from lightning_icl.interrupts import Terminated, terminable
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.process_setup import prepare_process
from lightning_icl.saving.paths import output_path
from lightning_icl.sweeping.settings import SweepSettings
from lightning_icl.weightupdate.settings import WeightUpdateSettings


@dataclass(frozen=True)
class Command:
    """One command of the program."""

    does: str
    """What it is for, in one sentence."""
    runs: str
    """Where its function is, MODULE:NAME; imported when it is called."""
    settings: type | None = None
    """What the function takes; None for one that takes each flag as an argument."""
    checks: str | None = None
    """Where names among the settings are checked, MODULE:NAME, before the function is imported."""
    add: Callable[[Parser], None] | None = None
    """Adds flags that are no settings."""


def _add_report(parser: Parser) -> None:
    parser.add_argument("folders", nargs="+", metavar="RUN", type=_path(input_path, "RUN"), help="Folders of runs.")
    parser.add_argument(
        "--tables",
        type=lambda text: text.split(","),
        help="Tables to show, with commas between them; without it those of the run.",
    )
    parser.add_argument(
        "--intervals", action="store_true", help="Show the 95%% interval of every figure, not of Rec2FTP alone."
    )
    parser.add_argument(
        "--export", action="store_true", help="Also write tables (Markdown, CSV, LaTeX) and pictures into the run."
    )
    parser.add_argument(
        "--html", metavar="FILE", type=_path(output_path, "--html"), help="Also write one self-contained page."
    )
    parser.add_argument(
        "--check", action="store_true", help="Compare with the published run repeated; status 1 where a figure is off."
    )


def _add_completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="The shell that reads the script.")


def print_completion(shell: str) -> None:
    """Print the script by which a shell completes commands, flags and their words."""
    import shtab

    from lightning_icl.models.finding import BUILTIN
    from lightning_icl.tasks.catalogue import GROUPS, TASKS

    parser, commands = _front_parser()
    for name, command in commands.items():
        _fill(command, COMMANDS[name])
        if (settings := COMMANDS[name].settings) is not None:
            offer_words(command, settings, task=[*TASKS, *GROUPS], model=list(BUILTIN))
    print(shtab.complete(parser, shell))


def _path(read: Callable[[str, str], Path], flag: str) -> Callable[[str], Path]:
    """A type for argparse whose errors keep their own message."""

    def convert(text: str) -> Path:
        try:
            return read(text, flag)
        except UserError as error:  # argparse would print a ValueError as "invalid value" alone
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


_NAMES = "lightning_icl.comparison.names:check_names"
COMMANDS: Mapping[str, Command] = {
    "compare": Command(
        "Fine-tune, then compare zero-shot, in-context and fine-tuned; print and save the tables.",
        "lightning_icl.comparison.commands:compare",
        CompareSettings,
        _NAMES,
    ),
    "fit": Command(
        "Only the restricted fine-tuning; saves its overlay.",
        "lightning_icl.comparison.commands:fit",
        CompareSettings,
        _NAMES,
    ),
    "validate": Command(
        "Only the probe, with or without an overlay made by `fit`.",
        "lightning_icl.comparison.commands:validate",
        ValidateSettings,
        _NAMES,
    ),
    "dual-form": Command(
        "Demonstrations and fine-tuning as updates of the same matrices, head by head.",
        "lightning_icl.dualform.commands:dual_form",
        DualSettings,
        _NAMES,
    ),
    "weight-update": Command(
        "Demonstrations replaced by updates of each head, rung by rung: what of in-context learning is left.",
        "lightning_icl.weightupdate.commands:weight_update",
        WeightUpdateSettings,
        _NAMES,
    ),
    "sweep": Command(
        "Many comparisons in one plan: models, tasks, seeds, shots and learning rates; resumable.",
        "lightning_icl.sweeping.commands:sweep",
        SweepSettings,
        _NAMES,
    ),
    "report": Command(
        "Tables, pictures and a page of saved runs, from their files alone.",
        "lightning_icl.report.show:show_report",
        add=_add_report,
    ),
    "tasks": Command("What can be asked.", "lightning_icl.listing:print_tasks"),
    "models": Command("Which architectures can be probed.", "lightning_icl.listing:print_models"),
    "pretrain": Command(
        "Train a language model, from scratch as the built-in model was or from existing weights.",
        "lightning_icl.pretraining.run:pretrain",
        PretrainSettings,
        "lightning_icl.pretraining.models:check_names",
    ),
    "completion": Command(
        "Print a script by which a shell completes flags, such as: source <(lightning-icl completion bash).",
        "lightning_icl.cli:print_completion",
        add=_add_completion,
    ),
}


def command_parser(name: str) -> Parser:
    """The flags of one command."""
    prog = f"lightning-icl {name}"
    usage = f"{prog} [--FLAG VALUE ...]"
    parser = Parser(prog=prog, usage=usage, description=COMMANDS[name].does, allow_abbrev=False)
    _fill(parser, COMMANDS[name])
    return parser


def _fill(parser: Parser, command: Command) -> None:
    if command.settings is not None:
        add_flags(parser, command.settings)
    if command.add is not None:
        command.add(parser)


def run(words: Sequence[str]) -> None:
    """Run the command that the words of a command line ask for.

    Raises:
        UserError: anything the user gave that cannot be used.
    """
    if not words or words[0] not in COMMANDS:
        _front(words)
        return
    name, command = words[0], COMMANDS[words[0]]
    parser = command_parser(name)
    # Unknown flags are told apart here, since argparse would print its usage and no suggestion.
    typed, unknown = parser.parse_known_args(words[1:])
    if unknown:
        word = unknown[0].split("=")[0]
        kind = "flag" if word.startswith("-") else "word, where values follow their flags:"
        raise UserError(f"unknown {kind} {shown(word, quoted=False)}. {did_you_mean(word, parser.flags())}")
    if command.settings is None:
        outcome = _function(command.runs)(**vars(typed))
    else:
        settings: Any = read_settings(command.settings, typed)
        if command.checks is not None:
            _function(command.checks)(settings)  # before the command, whose import takes seconds
        outcome = _function(command.runs)(settings)
    if outcome is False:  # a check of figures that did not hold
        sys.exit(1)


def _function(place: str) -> Callable[..., Any]:
    """The function at MODULE:NAME."""
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _front_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser of what stands before a command, and that of each command, still without flags."""
    parser = Parser(
        prog="lightning-icl",
        usage="lightning-icl COMMAND [--FLAG VALUE ...]",
        description="How does a language model learn from examples in its prompt?",
        epilog="lightning-icl COMMAND --help lists the flags of a command.",
    )
    parser.add_argument("--version", action="version", version=f"lightning-icl {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    return parser, {name: commands.add_parser(name, help=command.does) for name, command in COMMANDS.items()}


def _front(words: Sequence[str]) -> None:
    """Help, version, or what is wrong with the first word."""
    parser, _ = _front_parser()
    if not words:
        parser.print_help()
    elif words[0] in ("--help", "-h", "--version"):
        parser.parse_args(words[:1])
    elif words[0].startswith("-"):
        raise UserError(f"{words[0]} stands before the command. Begin with one of: {', '.join(COMMANDS)}.")
    else:
        raise UserError(f"Unknown command {words[0]!r}. {did_you_mean(words[0], COMMANDS)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command, and end the process where something kept it from its end.

    Exit status: 2 for a user's mistake, 130 for an interrupt, 143 for SIGTERM, 1 where only the printing failed.
    """
    prepare_process()  # before torch is imported, which reads these settings once
    with lasting_output() as output, terminable():
        status = _status(sys.argv[1:] if arguments is None else arguments)
    if output.fault is not None and not status:
        status = 1
        if not isinstance(output.fault, BrokenPipeError):  # a reader that has gone wants to hear nothing
            _tell(f"standard output could not be written: {output.fault.strerror}. What was saved is whole.")
    if status:
        sys.exit(status)


def _status(words: Sequence[str]) -> int:
    """Run a command; its exit status."""
    try:
        run(words)
    except UserError as error:
        _tell(f"error: {on_screen(str(error))}")
        return 2
    except Terminated:
        _tell("terminated; what was finished is kept, and nothing half-written was left.")
        return 143
    except KeyboardInterrupt:
        _tell("interrupted; what was finished is kept, and nothing half-written was left.")
        return 130
    return 0


def _tell(text: str) -> None:
    with suppress(OSError):  # standard error can be full or closed too
        print(f"lightning-icl: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
