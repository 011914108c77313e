"""What the experiment can be asked for, and the trainings that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_icl.errors import UserError, did_you_mean
from lightning_icl.file_names import input_path
from lightning_icl.plain_yaml import read_yaml
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.tasks.generated import GENERATED

SIZES = ("smoke", "cpu", "day", "further", "pair", "gpu", "long", "paper")
LEARNT = "learnt"
SEARCHED = ("learning_rate", "batch", "warmup")
"""What the search may try."""
# What an arm may change.
_OF_ARMS = ("momentum", "learn_momentum", "momentum_form", "gate_init", "seeds")
# Added to the seed of a model that is trained further: its documents and the order of its text are new ones.
_FURTHER_SEED = 1000
# Counted in steps: with a batch twice as large, half as many read the same.
_STEPS = ("steps", "short_steps", "warmup")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One kind of attention, trained with one or more seeds."""

    name: str
    momentum: float | None
    learnt: bool
    seeds: tuple[int, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its training that differ from the shared ones otherwise: its form, its gates."""

    @property
    def attention(self) -> dict[str, Any]:
        """What `lightning-icl pretrain` is told of it."""
        return {"momentum": self.momentum, "learn_momentum": self.learnt, **self.changes}


@dataclass(frozen=True, kw_only=True)
class ExperimentSettings:
    """The keys of the YAML files beside this one."""

    pretrain: Mapping[str, Any]
    """Settings of `lightning-icl pretrain` that all trainings share."""
    text: str
    """Text to train on, as `lightning-icl pretrain` takes it."""
    validation_text: str
    """Held-out text for perplexity."""
    start: str | None = None
    """Folder of another run of this experiment, each of whose models is trained further by what is set here; without it
    training begins with fresh weights."""
    search: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Values of learning rate, batch and warm-up that are tried for each kind of attention, the same for all; warm-up
    in steps of the whole training at the batch of `pretrain`."""
    search_share: float = 0.1
    """Share of a training's steps that the search makes for each value."""
    search_text: str | None = None
    """Held-out text that the search is judged on, no part of the other two."""
    eta: float = 0.9
    """η of the momentum model, and first value where it is learnt."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of the plain and the momentum model."""
    sweep: tuple[float | str, ...] = ()
    """Other values of η, and `learnt`."""
    sweep_seeds: tuple[int, ...] = (1,)
    """Seeds of these and of the arms."""
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further kinds of attention by name: what each changes in the settings of `lightning-icl pretrain`, and its
    `seeds` where they are not those of the sweep."""
    lengths: tuple[int, ...] = (256, 512, 1024)
    """Lengths of the inputs that perplexity is measured on; the same text at every length."""
    perplexity_tokens: int = 200_000
    """Tokens of each text that perplexity is measured on, at most."""
    tasks: str = "momentum"
    """Tasks of in-context accuracy, whose mean is what kinds of attention are compared by."""
    further_tasks: str | None = None
    """Tasks whose accuracy is reported, and counts in no mean."""
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
            UserError: η outside (0, 1), an unknown word in the sweep, or a search that cannot be made.
        """
        self._check_search()
        found = [Variant(name="vanilla", momentum=None, learnt=False, seeds=self.seeds)]
        for value in (self.eta, *self.sweep):
            if value != LEARNT and (isinstance(value, str) or not 0 < value < 1):
                raise UserError(f"sweep: {value!r} is neither a number between 0 and 1 nor {LEARNT!r}.")
            learnt = value == LEARNT
            name = LEARNT if learnt else f"eta-{value:g}"
            seeds = self.seeds if value == self.eta else self.sweep_seeds
            momentum = self.eta if learnt else float(value)
            found.append(Variant(name=name, momentum=momentum, learnt=learnt, seeds=seeds))
        found += [self._arm(name, changes) for name, changes in self.arms.items()]
        object.__setattr__(
            self, "variants", tuple({variant.name: variant for variant in reversed(found)}.values())[::-1]
        )

    def _arm(self, name: str, changes: Mapping[str, Any]) -> Variant:
        if unknown := sorted(changes.keys() - set(_OF_ARMS)):
            raise UserError(f"arms: {name!r} changes {unknown[0]!r}. {did_you_mean(unknown[0], _OF_ARMS)}")
        rest = {key: value for key, value in changes.items() if key not in ("momentum", "learn_momentum", "seeds")}
        learnt, seeds = bool(changes.get("learn_momentum", False)), tuple(changes.get("seeds", self.sweep_seeds))
        return Variant(name=name, momentum=changes.get("momentum"), learnt=learnt, seeds=seeds, changes=rest)

    def _check_search(self) -> None:
        if self.search and self.start is not None:
            raise UserError("start and search: models that are trained further all take what is set. Leave one out.")
        for name, values in self.search.items():
            if name not in SEARCHED:
                raise UserError(f"search: {name!r} cannot be searched. {did_you_mean(name, SEARCHED)}")
            if not isinstance(values, list | tuple) or not values:
                raise UserError(f"search: {name} = {values!r}: give a list of values to try.")
        if self.search and not 0 < self.search_share <= 1:
            raise UserError(f"search_share = {self.search_share}: it must be above 0 and at most 1.")
        if self.search and not self.search_text:
            raise UserError("Give --search-text: held-out text that the search is judged on, no part of the others.")

    def rows_of(self, task: str) -> Path | None:
        """The folder that a task's rows come from; none for built-in tasks, which bring their own."""
        return None if self.data is None or task in GENERATED else Path(self.data)

    def training(
        self, variant: Variant, seed: int, out: Path, chosen: Mapping[str, Any] | None = None
    ) -> PretrainSettings:
        """The training of one model; all of a seed share weights at the start, order of data, and number of tokens.

        Args:
            variant: what the model differs in.
            seed: of weights and data.
            out: the experiment's folder.
            chosen: learning rate, batch and warm-up that the search found for it.
        """
        first = self.first_model(variant, seed)
        # What is trained further has its attention from the first model.
        own = (
            {**variant.attention, "seed": seed} if first is None else {"init": str(first), "seed": seed + _FURTHER_SEED}
        )
        folder = model_folder(out, variant.name, seed)
        return self._training(self.tokenizer_folder(out), self._shared(chosen or {}, 1.0), out=str(folder), **own)

    @property
    def start_folder(self) -> Path | None:
        """`start` as a path."""
        return None if self.start is None else input_path(self.start, "--start")

    def first_model(self, variant: Variant, seed: int) -> Path | None:
        """The folder of the model that a training begins with; None for fresh weights."""
        return None if self.start_folder is None else model_folder(self.start_folder, variant.name, seed)

    def tokenizer_folder(self, out: Path) -> Path:
        """Where the one tokenizer of all models is: with those that are trained further, or else in the own folder."""
        return (self.start_folder or out) / "tokenizer"

    def search_training(self, variant: Variant, values: Mapping[str, Any], out: Path) -> PretrainSettings:
        """The short training that tries values, validated once at its end, with a seed that no model has."""
        shared = self._shared(values, self.search_share)
        shared |= dict.fromkeys(("validate_every", "checkpoint_every"), shared["steps"])
        name = "-".join(f"{key}-{value:g}" for key, value in values.items())
        seeds = [number for one in self.variants for number in one.seeds]
        folder, seed = out / "search" / variant.name / name, 1 + max(seeds)
        return self._training(
            self.tokenizer_folder(out),
            shared,
            out=str(folder),
            seed=seed,
            validation_text=self.search_text,
            **variant.attention,
        )

    def shared_values(self) -> dict[str, Any]:
        """Learning rate, batch and warm-up as they are without a search."""
        return {name: self.pretrain.get(name, getattr(PretrainSettings, name)) for name in SEARCHED}

    def _shared(self, chosen: Mapping[str, Any], share: float) -> dict[str, Any]:
        """Settings that trainings share, and what was chosen; every batch reads this share of the tokens."""
        lengths = {name: getattr(PretrainSettings, name) for name in _STEPS}
        content = {**lengths, **self.pretrain, **self.shared_values(), **chosen}
        factor = share * self.shared_values()["batch"] / content["batch"]
        return content | {name: round(factor * content[name]) for name in _STEPS}

    def _training(self, tokenizer: Path, shared: Mapping[str, Any], **own: Any) -> PretrainSettings:
        content = {"tokenizer": str(tokenizer), "validation_text": self.validation_text}
        return PretrainSettings(**{**content, **shared, "text": self.text, **own})


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
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in content.items()}
    return ExperimentSettings(**values)
