"""The controls that are known by name: what each asks, and how it makes its contrasts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lightning_icl.comparison.controls import _weights as weights
from lightning_icl.comparison.controls import examples
from lightning_icl.comparison.controls._context import ControlContext
from lightning_icl.errors import UserError, did_you_mean
from lightning_icl.probing.contrast import Contrast

OTHER_TASK = "other-task"
"""The control that needs rows of another task."""

_DEMONSTRATION_SETS: Mapping[str, Callable[[ControlContext], examples.DemonstrationSets]] = {
    "labels-random": examples.labels_random,
    "labels-flipped": examples.labels_flipped,
    "labels-abstract": examples.labels_abstract,
    "order": examples.order,
    OTHER_TASK: examples.other_task,
}
_OF_THE_MAIN_FINETUNING = ("query-position", "calibration", "shuffled-query", "ft-gaussian")


@dataclass(frozen=True, kw_only=True)
class Control:
    """A comparison beside the paper's own."""

    name: str
    """Name on the command line and in results."""
    title: str
    """What it is, in one sentence."""
    contrasts: Callable[[ControlContext], list[Contrast]]
    """Makes its contrasts, fine-tuning where it must."""
    demonstration_sets: Callable[[ControlContext], examples.DemonstrationSets] | None = None
    """The demonstrations that it learns from in place of the main ones; None where there are none."""

    @property
    def finetunes(self) -> bool:
        """Whether it has a fine-tuning of its own, and so a learning rate."""
        return self.name not in _OF_THE_MAIN_FINETUNING


CONTROLS: Mapping[str, Control] = {
    name: Control(name=name, title=title, contrasts=contrasts, demonstration_sets=_DEMONSTRATION_SETS.get(name))
    for name, title, contrasts in (
        (
            "query-position",
            "Zero-shot and fine-tuned queries at the positions of in-context ones",
            examples.query_position,
        ),
        (
            "labels-random",
            "Demonstrations with random labels, in the prompt and learnt",
            examples.of_sets(examples.labels_random),
        ),
        (
            "labels-flipped",
            "Demonstrations with the next label, in the prompt and learnt",
            examples.of_sets(examples.labels_flipped),
        ),
        ("labels-abstract", "Answers A, B, C, … in demonstrations and scores", examples.scored_by_letters),
        ("calibration", "Answer probabilities divided by those of inputs without content", examples.calibration),
        ("shuffled-query", "The update of the prompt against that of another query", examples.shuffled_query),
        (
            "order",
            "Demonstrations in other orders, in the prompt and learnt",
            examples.of_sets(examples.order),
        ),
        (OTHER_TASK, "Fine-tuning on another task's demonstrations", examples.tuned_on_other_task),
        ("ft-gaussian", "A Gaussian update of the fine-tuning's norm, parameter by parameter", weights.ft_gaussian),
        ("ft-query", "Fine-tuning of the query projections only", weights.ft_query),
        ("ft-all", "Fine-tuning of all parameters", weights.ft_all),
        ("layer-causal", "Fine-tuning of each layer from its own attention's loss", weights.layer_causal),
        ("layer-causal-block", "Fine-tuning of each layer from its own block's loss", weights.layer_causal_block),
        ("untrained", "A model with fresh weights", weights.untrained),
        ("untrained-embeddings", "Fresh weights but for embeddings and norms", weights.untrained_embeddings),
        ("untrained-norms", "Fresh weights but for norms", weights.untrained_norms),
    )
}


def choose(text: str | None) -> tuple[Control, ...]:
    """Controls by names with commas between them, in the order of the catalogue; `all` is every one.

    Raises:
        UserError: an unknown name.

    >>> [control.name for control in choose("order,ft-query")]
    ['order', 'ft-query']
    """
    names = _words(text)
    for name in names:
        if name not in CONTROLS and name != "all":
            raise UserError(f"--controls: control {name!r} is not known. {did_you_mean(name, [*CONTROLS, 'all'])}")
    return tuple(control for name, control in CONTROLS.items() if name in names or "all" in names)


def own_rates(text: str | None, chosen: Sequence[Control]) -> dict[str, float]:
    """Learning rates of controls by name, from `NAME=RATE` with commas between them.

    Args:
        text: as on the command line.
        chosen: the controls of the run.

    Raises:
        UserError: a control that is not chosen or has no fine-tuning of its own, or a rate that is no positive number.

    >>> own_rates("ft-all=1e-4", choose("order,ft-all"))
    {'ft-all': 0.0001}
    """
    tuned = [control.name for control in chosen if control.finetunes]
    rates: dict[str, float] = {}
    for word in _words(text):
        name, _, number = (part.strip() for part in word.partition("="))
        # Known but useless here: a reason of its own, clearer than "not among --controls".
        if name in CONTROLS and not CONTROLS[name].finetunes:
            raise UserError(f"--control-lr {word}: control {name!r} has no fine-tuning of its own.")
        if name not in tuned:
            advice = did_you_mean(name, tuned) if tuned else "Give --controls too."
            raise UserError(f"--control-lr {word}: control {name!r} is not among --controls. {advice}")
        try:
            rates[name] = float(number)
        except ValueError:
            # 0 is out of range, so the check below answers for both.
            rates[name] = 0.0
        if not 0 < rates[name] < float("inf"):
            raise UserError(f"--control-lr {word}: give NAME=RATE with a positive number, such as {name}=0.01.")
    return rates


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]
