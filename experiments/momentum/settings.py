"""What the experiment can be asked for, and the trainings that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_icl.errors import UserError, did_you_mean
from lightning_icl.plain_yaml import read_yaml
from lightning_icl.pretraining.settings import PretrainSettings

SIZES = ("smoke", "cpu", "long", "paper")
LEARNT = "learnt"
# What an arm may change: momentum, and the rate that a search found for it.
_OF_ARMS = ("momentum", "learn_momentum", "momentum_form", "gate_init", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One kind of attention, trained with one or more seeds."""

    name: str
    momentum: float | None
    learnt: bool
    seeds: tuple[int, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its training that differ from the shared ones otherwise: its form, its gates."""


@dataclass(frozen=True, kw_only=True)
class ExperimentSettings:
    """The keys of the YAML files beside this one."""

    pretrain: Mapping[str, Any]
    """Settings of `lightning-icl pretrain` that all trainings share."""
    text: str
    """Text to train on, as `lightning-icl pretrain` takes it."""
    validation_text: str
    """Held-out text for perplexity."""
    eta: float = 0.9
    """η of the momentum model, and first value where it is learnt."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of the plain and the momentum model."""
    sweep: tuple[float | str, ...] = ()
    """Other values of η, and `learnt`."""
    sweep_seeds: tuple[int, ...] = (1,)
    """Seeds of these and of the arms."""
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further kinds of attention by name: what each changes in the settings of `lightning-icl pretrain`."""
    lengths: tuple[int, ...] = (256, 512, 1024)
    """Lengths of the inputs that perplexity is measured on; the same text at every length."""
    perplexity_tokens: int = 200_000
    """Tokens of each text that perplexity is measured on, at most."""
    tasks: str = "momentum"
    """Tasks of in-context accuracy."""
    data: str | None = None
    """Folder with the tasks' rows."""
    shots: int = 16
    """Demonstrations; where the context holds fewer, as many as fit."""
    limit: int = 500
    """Queries of each task."""
    accelerator: str = "auto"
    """Kind of device that measures, as in Lightning's Trainer."""
    variants: tuple[Variant, ...] = field(init=False)
    """The kinds of attention, the plain and the momentum model first."""

    def __post_init__(self) -> None:
        """Derive the variants.

        Raises:
            UserError: η outside (0, 1), or an unknown word in the sweep.
        """
        found = [Variant(name="vanilla", momentum=None, learnt=False, seeds=self.seeds)]
        for value in (self.eta, *self.sweep):
            if value != LEARNT and (isinstance(value, str) or not 0 < value < 1):
                raise UserError(f"sweep: {value!r} is neither a number between 0 and 1 nor {LEARNT!r}.")
            learnt = value == LEARNT
            name = LEARNT if learnt else f"eta-{value:g}"
            seeds = self.seeds if value == self.eta else self.sweep_seeds
            momentum = self.eta if learnt else float(value)
            found.append(Variant(name=name, momentum=momentum, learnt=learnt, seeds=seeds))
        for name, changes in self.arms.items():
            if unknown := sorted(changes.keys() - set(_OF_ARMS)):
                raise UserError(f"arms: {name!r} changes {unknown[0]!r}. {did_you_mean(unknown[0], _OF_ARMS)}")
            learnt = bool(changes.get("learn_momentum", False))
            rest = {key: value for key, value in changes.items() if key not in ("momentum", "learn_momentum")}
            momentum = changes.get("momentum")
            found.append(Variant(name=name, momentum=momentum, learnt=learnt, seeds=self.sweep_seeds, changes=rest))
        object.__setattr__(
            self, "variants", tuple({variant.name: variant for variant in reversed(found)}.values())[::-1]
        )

    def training(self, variant: Variant, seed: int, out: Path) -> PretrainSettings:
        """The training of one model; all of a seed share weights at the start, order of data, and steps."""
        shared = {"tokenizer": str(out / "tokenizer"), **self.pretrain, **variant.changes}
        return PretrainSettings(
            **shared,
            out=str(model_folder(out, variant.name, seed)),
            seed=seed,
            text=self.text,
            validation_text=self.validation_text,
            momentum=variant.momentum,
            learn_momentum=variant.learnt,
        )


def model_folder(out: Path, variant: str, seed: int) -> Path:
    """Where a trained model and what was measured on it are."""
    return out / "models" / f"{variant}-seed{seed}"


def read_settings(path: Path, changes: Mapping[str, Any]) -> ExperimentSettings:
    """Settings from a YAML file.

    Args:
        path: the file.
        changes: what the command line gives; None leaves a key as it is.

    Raises:
        UserError: the file cannot be read, or has a key that is not known.
    """
    content = read_yaml(path, "settings file")
    if not isinstance(content, dict):
        raise UserError(f"The settings file {str(path)!r} must hold keys and values.")
    content |= {name: value for name, value in changes.items() if value is not None}
    known = [name for name in ExperimentSettings.__dataclass_fields__ if name != "variants"]
    for name in content:
        if name not in known:
            raise UserError(f"{str(path)!r}: unknown key {name!r}. {did_you_mean(name, known)}")
    for name in ("text", "validation_text"):
        if not content.get(name):
            raise UserError(f"Give --{name.replace('_', '-')}: this size of the experiment does not bring its own.")
    return ExperimentSettings(**{n: tuple(v) if isinstance(v, list) else v for n, v in content.items()})
