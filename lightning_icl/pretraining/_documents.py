"""Few-shot documents made by rule: what the built-in model was trained on.

A document is `BOS ex_1 SEP ex_2 SEP …` about one task whose classes are drawn afresh: a family of concepts, some of its
classes, a prompt template, and label words that mean their class in some documents and nothing in the others. The
evaluation tasks' pairings of concept and label words are never drawn, nor are their word pairs (`sentences.held_out`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from lightning_icl.tasks import sentences, words
from lightning_icl.tasks.generated import GENERATED
from lightning_icl.tasks.template import fill_template

TEMPLATES = (
    "Sentence: {text} Label:",
    "Review: {text} Sentiment:",
    "Input: {text} Type:",
    "Article: {text} Answer:",
    "Text: {text} Class:",
    "{text} Answer:",
    "Q: {text} A:",
    "{text} =>",
    "Line: {text} Group:",
    "News: {text} Topic:",
    "{text} Label:",
    "Input: {text} Output:",
)
INFERENCE_TEMPLATES = (
    "{premise} Question: {hypothesis}. True, False, or Neither? Answer:",
    "{premise} Question: {hypothesis}. Answer:",
    "Premise: {premise} Hypothesis: {hypothesis}. Label:",
    "Given: {premise} Claim: {hypothesis}. Verdict:",
    "{premise} So {hypothesis}? Answer:",
)

# The template that asks with the evaluation task's words. Where they never are labels, a long training learns that too.
_NAMING = INFERENCE_TEMPLATES[0]

# Answer words that a family must never be labelled with, because an evaluation task pairs them.
RESERVED: dict[str, frozenset[str]] = {
    "sentiment": frozenset(GENERATED["tiny-sst2"].answers + GENERATED["tiny-sst5"].answers),
    "rating": frozenset(GENERATED["tiny-sst2"].answers + GENERATED["tiny-sst5"].answers),
    "tone": frozenset(GENERATED["tiny-subj"].answers),
    "topic": frozenset(GENERATED["tiny-agnews"].answers),
    "inference": frozenset(GENERATED["tiny-cb"].answers),
    "keyword": frozenset(),
    "lookup": frozenset(),
}

# How many classes a document has: mostly few, which are learnt first.
_CLASSES = (2, 2, 2, 2, 3, 3, 4, 5)
# Families by how often they are drawn; the easy ones form the circuits that the others need.
FAMILIES = {"sentiment": 4, "rating": 3, "tone": 2, "topic": 4, "inference": 2, "keyword": 3, "lookup": 3}


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One document's task."""

    family: str
    template: str
    labels: tuple[str, ...]
    make: sentences.Maker
    classes: tuple[int, ...]
    """Which of the maker's classes the document uses, in the order of `labels`."""

    def example(self, rng: Random) -> tuple[str, str]:
        # Drawn anew for every example, so labels cannot be predicted from their order.
        """A prompt and its answer (with its leading space)."""
        number = rng.randrange(len(self.classes))
        fields = self.make(rng, self.classes[number], False)
        return fill_template(self.template, fields), f" {self.labels[number]}"


def draw_episode(rng: Random, natural_share: float, named_share: float = 0.0) -> Episode:
    """A task drawn afresh.

    Args:
        rng: source of all chance.
        natural_share: share of documents whose labels mean their classes, where the family has such labels.
        named_share: share of inference documents whose labels are the words that their question names, in an order
            drawn for each document, so that none comes to mean a class.
    """
    family = rng.choices(list(FAMILIES), weights=list(FAMILIES.values()))[0]
    maker, size = _maker(rng, family)
    # Tone and inference are only meaningful with all of their classes.
    count = size if family in ("tone", "inference") else min(size, rng.choice(_CLASSES))
    classes = tuple(sorted(rng.sample(range(size), count)))
    # Nothing is drawn where the share is 0: a seed gives the documents that it gave before there was such a share.
    if named_share and family == "inference" and rng.random() < named_share:
        named = tuple(rng.sample(sorted(RESERVED[family]), count))
        return Episode(family=family, template=_NAMING, labels=named, make=maker, classes=classes)
    templates = INFERENCE_TEMPLATES if family == "inference" else TEMPLATES
    natural = _natural_labels(rng, family, size)
    if natural is not None and rng.random() < natural_share:
        labels = tuple(natural[number] for number in classes)
    else:
        # An evaluation task's own pairing of class and word would be learnt here and then measured.
        allowed = [label for label in words.LABELS if label not in RESERVED[family]]
        labels = tuple(rng.sample(allowed, count))
    return Episode(family=family, template=rng.choice(templates), labels=labels, make=maker, classes=classes)


def _maker(rng: Random, family: str) -> tuple[sentences.Maker, int]:
    """A family's maker with freshly drawn details, and how many classes it has."""
    if family == "sentiment":
        return sentences.sentiment(rng.choice(list(words.REVIEWED)), long=rng.random() < 0.4), 2
    if family == "rating":
        return sentences.rating(rng.choice(list(words.REVIEWED))), 5
    if family == "tone":
        return sentences.tone, 2
    if family == "topic":
        topics = rng.sample(list(words.TOPICS), 6)
        return sentences.topic(topics), 6
    if family == "inference":
        return sentences.inference, 3
    if family == "lookup":
        items = rng.sample(words.ANIMALS + words.COLOURS + words.SHAPES + words.PLACES, rng.randint(2, 6))
        return sentences.lookup(items, rng.choice((0, 0, 1, 3, 6))), len(items)
    pool = list(rng.choice((words.COLOURS, words.SHAPES)))
    rng.shuffle(pool)
    size = rng.randint(2, 4)
    return sentences.keyword([pool[number::size] for number in range(size)]), size


def _natural_labels(rng: Random, family: str, size: int) -> tuple[str, ...] | None:
    if family not in words.NATURAL_LABELS:
        return None
    return rng.choice(words.NATURAL_LABELS[family])[:size]


def document(
    seed: int, number: int, natural_share: float, repeat_share: float = 0.0, named_share: float = 0.0
) -> Iterator[tuple[str, str]]:
    """The endless (prompt, answer) examples of one document; the same seed and number give the same document.

    Args:
        seed: of all documents.
        number: of this one.
        natural_share: share of documents whose labels mean their classes.
        repeat_share: share of documents that go round among a few examples, where looking back is all that is needed.
        named_share: share of inference documents labelled with the words that their question names.
    """
    # A prime apart: neighbouring seeds share no documents.
    rng = Random(seed * 1_000_003 + number)
    episode = draw_episode(rng, natural_share, named_share)
    few = [episode.example(rng) for _ in range(rng.randint(2, 6))] if rng.random() < repeat_share else []
    while True:
        yield rng.choice(few) if few else episode.example(rng)
