"""What training documents may and may not show of the built-in tasks."""

from collections import Counter
from itertools import islice
from random import Random

import pytest

from lightning_icl.pretraining._documents import RESERVED, Episode, document, draw_episode

NAMED = RESERVED["inference"]


def episodes(count: int, named_share: float) -> list[Episode]:
    return [draw_episode(Random(number), 0.4, named_share) for number in range(count)]


def test_no_family_is_labelled_with_the_words_of_its_evaluation_task() -> None:
    for episode in episodes(3000, named_share=0.0):
        assert not RESERVED[episode.family] & set(episode.labels)


def test_words_that_a_question_names_are_labels_as_often_of_one_class_as_of_another() -> None:
    inference = [episode for episode in episodes(20_000, named_share=0.5) if episode.family == "inference"]
    named = [episode for episode in inference if NAMED & set(episode.labels)]
    assert len(named) / len(inference) == pytest.approx(0.5, abs=0.04)
    assert {episode.template for episode in named} == {
        "{premise} Question: {hypothesis}. True, False, or Neither? Answer:"
    }
    pairs = Counter((number, label) for episode in named for number, label in enumerate(episode.labels))
    assert len(pairs) == 9
    for count in pairs.values():  # a third of about 950 documents: 15 is the standard deviation
        assert count / len(named) == pytest.approx(1 / 3, abs=0.06)


def test_other_families_keep_their_documents_whatever_the_share() -> None:
    for number in range(60):
        if draw_episode(Random(7 * 1_000_003 + number), 0.4).family != "inference":
            without, with_named = (list(islice(document(7, number, 0.4, 0.3, share), 8)) for share in (0.0, 0.9))
            assert without == with_named
