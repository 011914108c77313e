"""Controls that change the examples or where the query stands: labels, order, another task, positions."""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from lightning_icl.comparison.controls._context import ControlContext, Unavailable
from lightning_icl.data.module import ICLDataModule
from lightning_icl.errors import TaskError
from lightning_icl.probing.contrast import Contrast
from lightning_icl.records import Condition, Demonstrations, QueryBatch

PERMUTATIONS = 3
CONTENT_FREE = ("N/A", "", "[MASK]")
LETTERS = tuple(string.ascii_uppercase)

DemonstrationSets = Mapping[str, Demonstrations]
"""By name of a contrast, the demonstrations that are learnt from in place of the main ones."""


def of_sets(sets: Callable[[ControlContext], DemonstrationSets]) -> Callable[[ControlContext], list[Contrast]]:
    """What makes a contrast of each set of demonstrations, which is in the prompt as well as learnt."""
    return lambda context: [context.with_demonstrations(name, one) for name, one in sets(context).items()]


def query_position(context: ControlContext) -> list[Contrast]:
    """Zero-shot and fine-tuned queries stand at the positions that they have behind the demonstrations."""
    offset = len(context.icl.prefix_token_ids) - len(context.zsl.prefix_token_ids)
    zsl = replace(context.zsl, name="zsl@query-position", position_offset=offset)
    ft = replace(context.ft("query-position", context.finetuned.overlay), position_offset=offset)
    return [replace(context.with_finetuning("query-position", context.finetuned), zsl=zsl, ft=ft)]


def labels_random(context: ControlContext) -> DemonstrationSets:
    """Every demonstration's answer is drawn from its options, all alike likely (Min et al., arXiv 2202.12837)."""
    # Seeded by name: another control's draws do not change with the order of controls.
    rng = Random(f"labels-random/{context.seed}")
    labels = [rng.randrange(count) for count in context.data.demonstration_options]
    return {"labels-random": context.data.relabelled(labels)}


def labels_flipped(context: ControlContext) -> DemonstrationSets:
    """Every demonstration has the option after the right one, the first after the last; of two, the wrong one."""
    options = context.data.demonstration_options
    # The next option and not a random one: with two options that is always the wrong one.
    labels = [(label + 1) % count for label, count in zip(context.demonstrations.labels, options, strict=True)]
    return {"labels-flipped": context.data.relabelled(labels)}


def labels_abstract(context: ControlContext) -> DemonstrationSets:
    """Answers are letters in demonstrations (Pan et al., arXiv 2305.09731).

    Raises:
        Unavailable: the task's answers differ by row or have several tokens, an answer is probed, or a letter is not
            one token.
    """
    letters, _ = _letters(context.data)
    return {"labels-abstract": context.data.relabelled(context.demonstrations.labels, letters)}


def scored_by_letters(context: ControlContext) -> list[Contrast]:
    """Answers are letters in the scores of all three conditions too."""
    _, answer_ids = _letters(context.data)
    (contrast,) = of_sets(labels_abstract)(context)
    return [
        replace(
            contrast,
            # Zero-shot needs a name of its own: it is scored by other tokens than the main one.
            zsl=replace(contrast.zsl, name="zsl@labels-abstract", answer_ids=answer_ids),
            icl=replace(contrast.icl, answer_ids=answer_ids),
            ft=replace(contrast.ft, answer_ids=answer_ids),
        )
    ]


def _letters(data: ICLDataModule) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Letters that can stand in for the answers, and their tokens."""
    letters = LETTERS[: len(data.answers)]
    if not data.task.answers or data.probe_token != "prompt" or len(data.task.answers) > len(letters):
        raise Unavailable(
            "letters can stand in only for answers that all rows share, probed at the prompt's last token."
        )
    try:
        ids = data.word_ids(letters)
    except TaskError as error:
        raise Unavailable(f"letters can stand in only where each is one token of its own: {error}") from error
    # With several tokens, an answer's own tokens would follow the letters in its branch.
    if any(len(answer) != 1 for answer in (*ids, *data.answers)):
        raise Unavailable("letters can stand in only where they and the task's answers have one token each.")
    return letters, tuple(answer[0] for answer in ids)


def calibration(context: ControlContext) -> list[Contrast]:
    """Contextual calibration (Zhao et al., arXiv 2102.09690): answer probabilities divided by those without content.

    The latter are means over the inputs "N/A", "" and "[MASK]" under the same condition.

    Raises:
        Unavailable: the answers differ by row, or the template makes no prompt of a text that says nothing.
    """
    # Under the same condition, since the bias that is divided out depends on the prompt.
    batch = _content_free(context.data)
    main = context.with_finetuning("calibration", context.finetuned)
    zsl, icl, ft = (replace(condition, content_free=batch) for condition in main.conditions)
    # FT has a name of its own already.
    zsl, icl = replace(zsl, name="zsl@calibration"), replace(icl, name="icl@calibration")
    return [replace(main, zsl=zsl, icl=icl, ft=ft)]


def _content_free(data: ICLDataModule) -> QueryBatch:
    if not data.task.answers:
        raise Unavailable("only answers that all rows share can be calibrated.")
    try:
        return data.content_free(CONTENT_FREE)
    except TaskError as error:
        raise Unavailable(f"the template cannot be filled with texts that say nothing: {error}") from error


def calibrated_readings(data: ICLDataModule) -> tuple[Condition, ...]:
    """In-context learning with calibrated answers, as `icl_calibrated`; nothing where the task allows none."""
    try:
        batch = _content_free(data)
    except Unavailable:
        return ()
    return (replace(Condition.in_context(data.demonstrations, "icl_calibrated"), content_free=batch),)


def shuffled_query(context: ControlContext) -> list[Contrast]:
    """What demonstrations do to one query against what they do to another of about the same length."""
    main = context.with_finetuning("shuffled-query", context.finetuned)
    note = "only SimAOU is defined between queries"
    # `ft` is in-context learning itself: the two sides differ by query, not by condition.
    return [replace(main, ft=context.icl, next_query=True, learning_rate=None, note=note)]


def order(context: ControlContext) -> DemonstrationSets:
    """The same demonstrations in other orders, in the prompt and in fine-tuning."""
    rng = Random(f"order/{context.seed}")
    demonstration_sets = {}
    for number in range(1, PERMUTATIONS + 1):
        # One generator for all of them, so that the orders differ from each other.
        places = list(range(len(context.demonstrations)))
        rng.shuffle(places)
        demonstration_sets[f"order-{number}"] = permuted(context.demonstrations, places)
    return demonstration_sets


def permuted(demonstrations: Demonstrations, places: Sequence[int]) -> Demonstrations:
    """The same demonstrations in another order.

    Args:
        demonstrations: in their own order.
        places: for each place of the new order, the number of the demonstration that stands there.
    """
    return replace(
        demonstrations,
        indices=tuple(demonstrations.indices[place] for place in places),
        labels=tuple(demonstrations.labels[place] for place in places),
        examples=tuple(demonstrations.examples[place] for place in places),
    )


def other_task(context: ControlContext) -> DemonstrationSets:
    """Demonstrations of the next task of the same group, learnt from.

    Raises:
        Unavailable: there is no such task, or its rows cannot be read.
    """
    if context.neighbour is None:
        raise Unavailable("the task has no neighbour in the catalogue whose rows can be read.")
    return {"other-task": context.neighbour}


def tuned_on_other_task(context: ControlContext) -> list[Contrast]:
    """Fine-tuning on another task's demonstrations, against the main in-context learning.

    Kendall is undefined: the two have other tokens.
    """
    return [
        # Other tokens than those of the prompt: their query vectors cannot be matched.
        context.with_finetuning(name, replace(context.fit(demonstrations), training_queries=None))
        for name, demonstrations in other_task(context).items()
    ]
