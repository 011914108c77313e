"""Readable English sentences made by rule, each of a known class.

Word pairs are split in two by a fixed hash: one part only documents for training the built-in model may use, the other
only the built-in evaluation tasks, so that no evaluated sentence combination was ever shown in training.
"""

import re
import zlib
from collections.abc import Callable, Sequence
from random import Random

from lightning_icl.tasks import words

Maker = Callable[[Random, int, bool], dict[str, str]]


def held_out(first: str, second: str) -> bool:
    """Whether a pair of words belongs to evaluation (one pair in four) and not to training."""
    # By hash and not by draw: a pair belongs to its part for good.
    return zlib.crc32(f"{first}|{second}".encode()) % 4 == 0


def pair(rng: Random, first: Sequence[str], second: Sequence[str], evaluation: bool) -> tuple[str, str]:
    """A pair of words from the part that may be used."""
    # Three pairs in four are for training, so this ends soon.
    while True:
        chosen = rng.choice(first), rng.choice(second)
        if held_out(*chosen) == evaluation:
            return chosen


def _written(frame: str, **values: str) -> str:
    """A frame filled, with `an` before vowels."""
    # After filling: the article depends on the word that was drawn.
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", frame.format(**values))


_FILM_FRAMES = (
    "the {noun} is {adjective} and the {other} is {second}",
    "a {adjective} {noun} with a {second} {other}",
    "I found the {noun} {adjective} and the {other} {second}",
    "this {noun} feels {adjective} , even the {other} seems {second}",
    "a {second} {other} makes the {noun} {adjective}",
)
_LONG_FRAMES = (
    "when the {noun} turns {adjective} , the {other} only gets more {second} , and nobody forgets it",
    "everyone who saw it said that the {noun} was {adjective} and that the {other} remained {second}",
    "from the first minute to the last the {noun} stays {adjective} , and so does the {second} {other}",
    "it is a {adjective} {noun} about very little , with a {second} {other} in the middle",
)


def sentiment(domain: str, long: bool = False) -> Maker:
    """Two classes: a negative or a positive remark about something in a domain."""

    def make(rng: Random, label: int, evaluation: bool) -> dict[str, str]:
        adjectives = words.POSITIVE if label else words.NEGATIVE
        noun, adjective = pair(rng, words.REVIEWED[domain], adjectives, evaluation)
        # The second pair may repeat the first; that is rare and harmless.
        other, second = pair(rng, words.REVIEWED[domain], adjectives, evaluation)
        frame = rng.choice(_LONG_FRAMES if long else _FILM_FRAMES)
        return {"text": _written(frame, noun=noun, adjective=adjective, other=other, second=second) + " ."}

    return make


def rating(domain: str) -> Maker:
    """Five classes, from strongly negative over neutral to strongly positive."""

    def make(rng: Random, label: int, evaluation: bool) -> dict[str, str]:
        adjectives = (words.NEGATIVE, words.NEGATIVE, words.NEUTRAL, words.POSITIVE, words.POSITIVE)[label]
        noun, adjective = pair(rng, words.REVIEWED[domain], adjectives, evaluation)
        # A mild rating has other words than a strong one, so degrees are told by word.
        degree = {0: words.STRONG, 4: words.STRONG, 1: words.MILD, 3: words.MILD}.get(label, ("quite", "just", "only"))
        frame = rng.choice(
            (
                "the {noun} is {degree} {adjective}",
                "a {degree} {adjective} {noun}",
                "in the end I thought the {noun} was {degree} {adjective}",
                "they made a {degree} {adjective} {noun} out of it",
            )
        )
        return {"text": _written(frame, noun=noun, adjective=adjective, degree=rng.choice(degree)) + " ."}

    return make


def tone(rng: Random, label: int, evaluation: bool) -> dict[str, str]:
    """Two classes: an objective line of a plot, or a subjective judgement of a film."""
    if label == 0:
        person, event = pair(rng, words.PEOPLE, words.EVENTS, evaluation)
        frame = rng.choice(
            (
                "{name} , a {person} from {place} , {deed} a stranger after the {event}",
                "a {person} {deed} {name} and learns about a {event} in {place}",
                "in {place} , {name} and a {person} prepare for the {event}",
                "years after the {event} , {name} returns to {place} as a {person}",
            )
        )
        values = {
            "person": person,
            "event": event,
            "name": rng.choice(words.NAMES),
            "place": rng.choice(words.PLACES),
            "deed": rng.choice(words.DEEDS),
        }
        return {"text": _written(frame, **values) + " ."}
    noun, adjective = pair(rng, words.REVIEWED["film"], words.POSITIVE + words.NEGATIVE, evaluation)
    frame = rng.choice(
        (
            "no {viewer} will call this {noun} {adjective} without a smile",
            "you may think the {noun} is {adjective} , and you are right",
            "it is hard not to find the {noun} {adjective}",
            "for any {viewer} , a {adjective} {noun} like this is enough",
        )
    )
    return {"text": _written(frame, noun=noun, adjective=adjective, viewer=rng.choice(words.AUDIENCE)) + " ."}


def topic(topics: Sequence[str]) -> Maker:
    """One class for each topic: a line of news."""

    def make(rng: Random, label: int, evaluation: bool) -> dict[str, str]:
        subjects, verbs, objects = words.TOPICS[topics[label]]
        subject, thing = pair(rng, subjects, objects, evaluation)
        frame = rng.choice(
            (
                "The {subject} {verb} the {thing} {time}.",
                "{time}, the {subject} {verb} a {thing} in {place}.",
                "{place}: {subject} {verb} {thing}.",
                "What the {subject} said about the {thing} {time}.",
            )
        )
        text = _written(
            frame,
            subject=subject,
            verb=rng.choice(verbs),
            thing=thing,
            time=rng.choice(words.TIMES),
            place=rng.choice(words.PLACES),
        )
        # Frames may begin with a place name or a verb, so the capital is set at the end.
        return {"text": text[0].upper() + text[1:]}

    return make


def inference(rng: Random, label: int, evaluation: bool) -> dict[str, str]:
    """Three classes: the hypothesis follows from the premise, contradicts it, or is about something else."""
    name, colour = rng.choice(words.NAMES), rng.choice(words.COLOURS)
    animal, spot = pair(rng, words.ANIMALS, words.SPOTS, evaluation)
    premise = _written(
        rng.choice(
            (
                "{name} keeps a {colour} {animal} in the {spot}.",
                "There is a {colour} {animal} in the {spot} of {name}.",
                "Every day {name} feeds the {colour} {animal} in the {spot}.",
            )
        ),
        name=name,
        colour=colour,
        animal=animal,
        spot=spot,
    )
    hypothesis = (
        rng.choice(("{name} has a {animal}", "the {animal} is in the {spot}", "the {animal} of {name} is {colour}")),
        rng.choice(("{name} has no {animal}", "the {animal} is not in the {spot}", "nobody ever saw a {animal}")),
        rng.choice(("{name} has a {vehicle}", "the {vehicle} is in the {spot}", "the {vehicle} of {name} is {colour}")),
    )[label]
    # Drawn in every case, so that the three classes take the same numbers from the generator.
    vehicle = rng.choice(words.VEHICLES)
    return {
        "premise": premise,
        "hypothesis": _written(hypothesis, name=name, colour=colour, animal=animal, spot=spot, vehicle=vehicle),
    }


def keyword(keywords: Sequence[Sequence[str]]) -> Maker:
    """One class for each group of key words, drawn afresh for a document; used in training documents only."""

    def make(rng: Random, label: int, evaluation: bool) -> dict[str, str]:
        frame = rng.choice(
            (
                "{name} put the {key} {good} in the {spot}.",
                "The {key} {good} was found {time}.",
                "A {good} , {key} and old , stood in the {spot}.",
                "{time} {name} wanted a {key} {good}.",
            )
        )
        text = _written(
            frame,
            name=rng.choice(words.NAMES),
            key=rng.choice(keywords[label]),
            good=rng.choice(words.GOODS),
            spot=rng.choice(words.SPOTS),
            time=rng.choice(words.TIMES),
        )
        return {"text": text[0].upper() + text[1:]}

    return make


def lookup(items: Sequence[str], fillers: int) -> Maker:
    """One class for each item, drawn afresh for a document: the item alone or among filler words; training only.

    Looking up what stood beside the same word before is the simplest thing that a prompt can teach, and the first
    that a model learns to do with prompts.
    """

    def make(rng: Random, label: int, evaluation: bool) -> dict[str, str]:
        filled = [rng.choice(words.GOODS + words.SPOTS + words.VEHICLES) for _ in range(fillers)]
        filled.insert(rng.randint(0, fillers), items[label])
        return {"text": " ".join(filled)}

    return make
