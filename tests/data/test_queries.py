"""Batches of queries: budgets, padding, branches, and independence of how queries are put together."""

from pathlib import Path

import pytest
import torch
from plain_passes import answer_scores as slow_scores
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.data.queries import Query, budget_batches, collate, groups, partners
from lightning_icl.models.capture import Capture
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition


def queries(lengths: list[int]) -> list[Query]:
    return [
        Query(index=number, gold=0, prompt_ids=tuple(range(10, 10 + length)), answers=((5,), (6, 7)))
        for number, length in enumerate(lengths)
    ]


def test_batches_keep_the_budget_and_every_query_once() -> None:
    made = queries([3, 9, 4, 4, 12, 30, 5, 6, 1, 2])
    batches = budget_batches(made, 26)
    assert sorted(query.index for batch in batches for query in batch) == list(range(len(made)))
    for batch in batches:
        assert len(batch) in groups_alone(made) or len(batch) * max(map(len, batch)) <= 26
    assert [len(batch[0]) for batch in batches] == sorted((len(batch[0]) for batch in batches), reverse=True)


def groups_alone(made: list[Query]) -> set[int]:
    return {len(group) for group in groups(len(made))}


def test_a_group_longer_than_the_budget_stands_alone() -> None:
    assert [len(batch) for batch in budget_batches(queries([50, 3, 3, 2, 2, 2]), 10)] == [3, 3]
    assert [len(batch) for batch in budget_batches(queries([50, 3]), 10)] == [2]
    assert budget_batches([], 10) == []


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 23])
def test_a_query_has_the_same_partner_whatever_the_batch(count: int) -> None:
    made = queries([5 + number % 4 for number in range(count)])
    found = []
    for budget in (1, 40, 64, 10_000):
        pairs = {}
        for batch in budget_batches(made, budget):
            pairs |= {batch[row].index: batch[other].index for row, other in enumerate(partners(len(batch)))}
        found.append(pairs)
    assert all(pairs == found[0] for pairs in found)
    assert sorted(found[0].values()) == list(range(count))
    assert count == 1 or all(own != other for own, other in found[0].items())
    if count > 2:  # no two queries are paired twice, which would count one similarity twice
        assert all(found[0][other] != own for own, other in found[0].items())


def test_branches_hold_answers_without_their_last_token() -> None:
    query = Query(index=0, gold=0, prompt_ids=(10, 11), answers=((5, 6), (7,), (8, 9, 4)))
    batch = collate([query])
    assert batch.token_ids.tolist() == [[10, 11, 5, 8, 9]]
    assert batch.positions.tolist() == [[0, 1, 2, 2, 3]]
    assert batch.branches is not None
    assert batch.branches.tolist() == [[0, 0, 1, 3, 3]]
    assert batch.probe_index.tolist() == [1]


def test_single_token_answers_need_one_logit_and_no_branches() -> None:
    batch = collate([Query(index=0, gold=0, prompt_ids=(10, 11, 12), answers=((5,), (6,), (7,)))])
    assert batch.branches is None
    assert batch.logit_tokens.tolist() == [2]


@pytest.mark.parametrize("answers", ["single", "multi"])
@pytest.mark.parametrize("variant", ["gpt2", "llama", "gemma2", "bloom"])
def test_batch_size_changes_nothing(variant: str, answers: str, tmp_path: Path) -> None:
    data, model = tiny_data(tmp_path, answers), tiny_model(variant)
    condition = Condition(name="icl", prefix_token_ids=data.demonstrations.prefix_token_ids)
    seen: list[dict[int, tuple[torch.Tensor, ...]]] = []
    with Capture(model) as capture:
        view = View.prepare(capture, condition)
        for budget in (1, 40, 10_000):
            rows = {}
            for batch in map(collate, budget_batches(data.queries, budget)):
                observed = view.observe(capture, batch)
                for row, (index, own) in enumerate(
                    zip(batch.query_ids.tolist(), observed.own_lengths.tolist(), strict=True)
                ):
                    rows[index] = (
                        observed.answer_scores[row], observed.attention_output[row], observed.query[row],
                        observed.own_scores[row, ..., :own], observed.prefix_scores[row],
                    )  # fmt: skip
            seen.append(rows)
    for rows in seen[1:]:
        assert rows.keys() == seen[0].keys()
        for index, tensors in rows.items():
            for one, other in zip(tensors, seen[0][index], strict=True):
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_shared_prefix_equals_the_full_forward(tmp_path: Path) -> None:
    data, model = tiny_data(tmp_path, "multi"), tiny_model("llama")
    prefix = data.demonstrations.prefix_token_ids
    with Capture(model) as capture:
        view = View.prepare(capture, Condition(name="icl", prefix_token_ids=prefix))
        scores = view.observe(capture, collate(data.queries)).answer_scores
    expected = torch.tensor([slow_scores(model, prefix, query) for query in data.queries])
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
