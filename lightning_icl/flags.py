"""Settings classes as flags of the command line and as keys of YAML files.

A field is a flag, the sentence under it its help, its type says what is read. Flags win over files wherever they stand.
"""

import argparse
import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from lightning_icl.errors import UserError, did_you_mean
from lightning_icl.file_names import input_path
from lightning_icl.plain_yaml import read_yaml
from lightning_icl.setting_values import expected, from_text, from_yaml, may_be_none, nearest, words_of

Settings = TypeVar("Settings")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are short and say what to do."""

    def error(self, message: str) -> Any:
        """Raise what argparse would print.

        Raises:
            UserError: always.
        """
        # argparse words its complaints for programmers; the flag's name is all that is taken from them.
        flag = message.removeprefix("argument ").split(":")[0].split("/")[0].strip()
        if "expected one argument" in message:
            message = f"{flag} needs a value. One that begins with a dash is written {flag}=VALUE."
        elif "ignored explicit argument" in message:
            message = f"{flag} takes no value: give it, or leave it out."
        elif "are required" in message:
            message = f"{message.split(':')[-1].strip()} is missing. `{self.prog} --help` says what it is."
        elif message.startswith("argument "):  # a type's own complaint names the flag itself
            message = message.split(": ", 1)[-1]
        raise UserError(message)

    def flags(self) -> list[str]:
        """Its long flags, without those that say no."""
        every = [flag for action in self._actions for flag in action.option_strings]
        return [flag for flag in every if flag.startswith("--") and not flag.startswith("--no-")]


def add_flags(parser: argparse.ArgumentParser, settings: type) -> None:
    """One flag for each field of a settings class, and `--config`. What is not given stays out of the namespace."""
    sentences, hints = _sentences(settings), get_type_hints(settings)
    for field in dataclasses.fields(settings):
        # argparse formats help with %, which a sentence may hold.
        text = sentences[field.name].replace("%", "%%") + _default(field)
        if hints[field.name] is bool:
            action: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        else:
            action = {"metavar": field.name.upper()}
        # Suppressed defaults tell a flag that was typed from one that was not.
        parser.add_argument(flag_of(field.name), help=text, default=argparse.SUPPRESS, **action)
    text = "YAML file with the same keys as the flags; flags that are given too win over it."
    parser.add_argument("--config", action="append", metavar="FILE", help=text, default=[])


def offer_words(parser: argparse.ArgumentParser, settings: type, **words: Sequence[str]) -> None:
    """Let a shell's completion offer the words that flags may have; such a parser reads nothing.

    Args:
        parser: with the flags of the settings.
        settings: their class.
        words: more words, by field.
    """
    hints = get_type_hints(settings)
    for action in parser._actions:
        offered = words.get(action.dest) or (words_of(hints[action.dest]) if action.dest in hints else [])
        action.choices = offered or action.choices


def read_settings(settings: type[Settings], given: argparse.Namespace) -> Settings:
    """The settings that flags and configuration files give; a class may say by `implied` what else follows from them.

    Raises:
        UserError: a file that is no configuration, a value of the wrong type, or one that the settings refuse.
    """
    # Files first, flags over them, and what a class infers below both.
    values: dict[str, Any] = {}
    for file in given.config:
        values |= read_configuration(settings, input_path(file, "--config"))
    hints = get_type_hints(settings)
    for name, value in vars(given).items():
        if name in hints:
            values[name] = value if hints[name] is bool else _flag_value(flag_of(name), hints[name], value)
    implied = getattr(settings, "implied", None)
    if implied is not None:
        values = {**implied(values), **values}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        if field.name not in values and _is_required(field):
            raise UserError(f"{flag_of(field.name)} is needed: {_sentences(settings)[field.name]}")
    return settings(**values)


def flag_of(name: str) -> str:
    """The flag of a field.

    >>> flag_of("batch_tokens")
    '--batch-tokens'
    """
    return f"--{name.replace('_', '-')}"


def _flag_value(flag: str, kind: Any, text: str) -> Any:
    value = from_text(kind, text)
    if value is None:
        instead = "" if text else ", or leave the flag out"
        raise UserError(f"{flag} {text!r}: give {expected(kind)}{instead}.{nearest(kind, text)}")
    return value


def read_configuration(settings: type, path: Path) -> dict[str, Any]:
    """The values in a configuration file, by field.

    Raises:
        UserError: it is no configuration, or has a value of the wrong type.
    """
    content, hints = read_yaml(path, "configuration file"), get_type_hints(settings)
    if not isinstance(content, dict):
        raise UserError(f"The configuration file {str(path)!r} holds no settings: give keys and values, a line each.")
    for key in content:
        if key not in hints:
            raise UserError(
                f"Unknown key {key!r} in the configuration file {str(path)!r}. {did_you_mean(str(key), hints)}"
            )
    return {name: _key_value(path, name, hints[name], value) for name, value in content.items()}


def _key_value(path: Path, name: str, kind: Any, value: object) -> Any:
    read = from_yaml(kind, value)
    if read is None and not (value is None and may_be_none(kind)):
        raise UserError(
            f"Key {name!r} in the configuration file {str(path)!r} is {value!r}: give {expected(kind)}."
            f"{nearest(kind, value)}"
        )
    return read


def _default(field: "dataclasses.Field[Any]") -> str:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    # A missing or false default needs no word.
    if default is None or isinstance(default, bool) or default is dataclasses.MISSING:
        return ""
    return f" (default: {','.join(map(str, default)) if isinstance(default, list) else default})"


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _sentences(settings: type) -> dict[str, str]:
    """The sentence under each field, a subclass's before that of its bases."""
    from docstring_parser import parse_from_object  # slow to import, and only help needs it

    sentences = {}
    # Bases first, so that a subclass's sentence about a field replaces theirs.
    for kind in reversed(inspect.getmro(settings)):
        if dataclasses.is_dataclass(kind):
            for item in parse_from_object(kind).params:
                sentences[item.arg_name] = " ".join((item.description or "").split())
    return sentences
