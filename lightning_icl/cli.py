"""The command line: commands and flags, nothing else.

Flags and their help are the fields of settings classes and the sentences under them. Everything heavy is imported by
the command that needs it, so that `--help` answers at once.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

import jsonargparse

from lightning_icl._version import __version__
from lightning_icl.comparison.settings import CompareSettings, ValidateSettings
from lightning_icl.dualform.settings import DualSettings
from lightning_icl.errors import UserError, did_you_mean
from lightning_icl.process_setup import prepare_process
from lightning_icl.sweeping.settings import SweepSettings

Settings = TypeVar("Settings")


class Parser(jsonargparse.ArgumentParser):
    """An argument parser whose complaints are short and name the nearest valid word."""

    words: Sequence[str] = ()
    """What is being parsed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and what to do, and exit with status 2."""
        print(f"lightning-icl: error: {self._helpful(message)}", file=sys.stderr)
        sys.exit(2)

    def _helpful(self, message: str) -> str:
        first = message.strip().replace("<class '", "").replace("'>", "").replace("typing.", "")
        if "unrecognized arguments:" in first:
            given = first.split("unrecognized arguments:")[1].split()[0]
            return f"unknown flag {given}. {did_you_mean(given.split('=')[0], self._flags())}"
        if "does not accept option '" in first:
            given = first.split("option '")[1].split("'")[0]
            known = [flag.lstrip("-").replace("-", "_") for flag in self._flags()]
            return f"unknown key {given!r} in the configuration file. {did_you_mean(given, known)}"
        if "invalid choice: '" in first:
            given = first.split("invalid choice: '")[1].split("'")[0]
            return f"unknown command {given!r}. {did_you_mean(given, COMMANDS)}"
        return " ".join(first.split())

    def _flags(self) -> list[str]:
        """Flags of the command being parsed."""
        command = next((word for word in self.words if word in COMMANDS), None)
        parser = _command_parser(command) if command else self
        flags = [flag for action in parser._actions for flag in action.option_strings]
        return [flag for flag in flags if flag.startswith("--") and flag.replace("-", "").isalpha()]


def add_settings(parser: jsonargparse.ArgumentParser, settings: type) -> None:
    """One flag for each field of a settings class, helped by the sentence under the field."""
    from docstring_parser import parse_from_object

    sentences = {item.arg_name: item.description for item in parse_from_object(settings).params}
    hints = get_type_hints(settings)
    for field in dataclasses.fields(settings):
        flag, text = f"--{field.name.replace('_', '-')}", (sentences.get(field.name) or "").replace("\n", " ")
        if hints[field.name] is bool:
            parser.add_argument(flag, action="store_true", default=field.default, help=text)
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        required = default is dataclasses.MISSING
        parser.add_argument(
            flag,
            type=hints[field.name],
            help=text,
            metavar=field.name.upper(),
            required=required,
            default=None if required else default,
        )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file with the same keys as the flags.")


def _settings(kind: type[Settings], namespace: Any) -> Settings:
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in vars(namespace).items() if name in names})


def _compare(namespace: Any) -> None:
    from lightning_icl.comparison.commands import compare

    compare(_settings(CompareSettings, namespace))


def _fit(namespace: Any) -> None:
    from lightning_icl.comparison.commands import fit

    fit(_settings(CompareSettings, namespace))


def _validate(namespace: Any) -> None:
    from lightning_icl.comparison.commands import validate

    validate(_settings(ValidateSettings, namespace))


def _dual_form(namespace: Any) -> None:
    from lightning_icl.dualform.commands import dual_form

    dual_form(_settings(DualSettings, namespace))


def _sweep(namespace: Any) -> None:
    from lightning_icl.sweeping.commands import sweep

    sweep(_settings(SweepSettings, namespace))


def _report(namespace: Any) -> None:
    from lightning_icl.report.show import show_report
    from lightning_icl.saving.paths import output_path

    html = None if namespace.html is None else output_path(namespace.html, "--html")
    folders = [Path(run) for run in namespace.runs]
    wanted = {name: getattr(namespace, name) for name in ("tables", "intervals", "export", "check")}
    if not show_report(folders, **wanted, html=html):
        sys.exit(1)


def _tasks(namespace: Any) -> None:
    from lightning_icl.listing import print_tasks

    print_tasks()


def _models(namespace: Any) -> None:
    from lightning_icl.listing import print_models

    print_models()


def _pretrain(namespace: Any) -> None:
    from lightning_icl.pretraining.run import pretrain
    from lightning_icl.pretraining.settings import PretrainSettings

    pretrain(_settings(PretrainSettings, namespace))


COMMANDS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "compare": ("Fine-tune, then compare zero-shot, in-context and fine-tuned; print and save the tables.", _compare),
    "fit": ("Only the restricted fine-tuning; saves its overlay.", _fit),
    "validate": ("Only the probe, with or without an overlay made by `fit`.", _validate),
    "dual-form": ("Demonstrations and fine-tuning as updates of the same matrices, head by head.", _dual_form),
    "sweep": ("Many comparisons in one plan: models, tasks, seeds, shots and learning rates; resumable.", _sweep),
    "report": ("Tables, pictures and a page of saved runs, from their files alone.", _report),
    "tasks": ("What can be asked.", _tasks),
    "models": ("Which architectures can be probed.", _models),
    "pretrain": ("Train a language model, from scratch as the built-in model was or from existing weights.", _pretrain),
}


def _command_parser(command: str) -> Parser:
    parser = Parser(prog=f"lightning-icl {command}", description=COMMANDS[command][0])
    if command in ("compare", "fit"):
        add_settings(parser, CompareSettings)
    elif command == "validate":
        add_settings(parser, ValidateSettings)
    elif command == "dual-form":
        add_settings(parser, DualSettings)
    elif command == "sweep":
        add_settings(parser, SweepSettings)
    elif command == "pretrain":
        from lightning_icl.pretraining.settings import PretrainSettings

        add_settings(parser, PretrainSettings)
    elif command == "report":
        parser.add_argument("runs", nargs="+", metavar="RUN", help="Folders of runs.")
        parser.add_argument("--tables", type=list[str] | None, help="Tables to show; without it those of the run.")
        parser.add_argument(
            "--intervals", action="store_true", help="Show the 95% interval of every figure, not of Rec2FTP alone."
        )
        parser.add_argument(
            "--export", action="store_true", help="Also write tables (Markdown, CSV, LaTeX) and pictures into the run."
        )
        parser.add_argument("--html", metavar="FILE", help="Also write one self-contained page.")
        parser.add_argument(
            "--check",
            action="store_true",
            help="Compare with the published run repeated; status 1 where a figure is off.",
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; user mistakes end with one line on stderr and status 2, an interrupt with status 130."""
    prepare_process()
    words = list(sys.argv[1:] if arguments is None else arguments)
    Parser.words = words
    parser = Parser(prog="lightning-icl", description="How does a language model learn from examples in its prompt?")
    parser.add_argument("--version", action="version", version=f"lightning-icl {__version__}")
    commands = parser.add_subcommands(dest="command")
    wanted = [words[0]] if words and words[0] in COMMANDS else list(COMMANDS)
    for command in COMMANDS:
        built = _command_parser(command) if command in wanted and len(wanted) == 1 else Parser()
        commands.add_subcommand(command, built, help=COMMANDS[command][0])
    namespace = parser.parse_args(words)
    try:
        COMMANDS[namespace.command][1](namespace[namespace.command])
    except UserError as error:
        print(f"lightning-icl: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("lightning-icl: interrupted; nothing unfinished was left behind.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
