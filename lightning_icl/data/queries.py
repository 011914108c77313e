"""Queries as tokens, and batches of them: right-padded, sorted by length, cut by a token budget.

A batch needs no mask: its rows are causal, positions are plain ranges, and every row is read at its own last token.
Where answers have several tokens, they follow the prompt as branches, so the prompt still runs once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_icl.data.settings import ProbeToken
from lightning_icl.records import QueryBatch


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query as tokens: a row's prompt, and the answers to be scored after it."""

    index: int
    """Row number in the data file."""
    gold: int
    """Number of the right answer."""
    prompt_ids: tuple[int, ...]
    """The prompt, without BOS."""
    answers: tuple[tuple[int, ...], ...]
    """Tokens of each answer to choose from: the task's, or the row's own."""
    probe_token: ProbeToken = "prompt"
    """Probe the prompt's last token, or the last token of the first answer put behind it, right or wrong."""

    @cached_property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """What must be fed of each answer: all but its last token, and the whole first answer if it is probed."""
        # A token's score is read at the token before it, so an answer's last token need not be fed.
        fed = [answer[:-1] for answer in self.answers]
        if self.probe_token == "answer":
            fed[0] = self.answers[0]
        return tuple(fed)

    @property
    def probe_index(self) -> int:
        """Index of the probe token t among the query's own tokens."""
        return len(self.prompt_ids) - 1 + (len(self.answers[0]) if self.probe_token == "answer" else 0)

    def __len__(self) -> int:
        return len(self.prompt_ids) + sum(map(len, self.branches))

    @property
    def reach(self) -> int:
        """Positions the query takes together with its longest answer."""
        return len(self.prompt_ids) + max(map(len, self.answers))


GROUP = 3
"""Queries that batches keep together: controls that need another query of about the same length find it there."""


def groups(count: int) -> list[range]:
    """Rows in order in groups of three; a rest of one or two joins the last group.

    >>> groups(7)
    [range(0, 3), range(3, 7)]
    """
    # The last start lies three before the end at least, so no group is smaller than three unless all rows are fewer.
    starts = list(range(0, max(1, count - GROUP + 1), GROUP))
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


def partners(count: int) -> list[int]:
    """For each row the next one of its group, for the last the first: the same queries in whatever batch they stand.

    >>> partners(7)
    [1, 2, 0, 4, 5, 6, 3]
    """
    return [row + 1 if row + 1 in group else group[0] for group in groups(count) for row in group]


def budget_batches(queries: Sequence[Query], batch_tokens: int) -> list[list[Query]]:
    """Queries sorted by length, longest first, in batches of at most `batch_tokens` tokens with padding.

    Batches hold whole `groups` of the sorted order, and so at least three queries where there are as many, whatever
    the budget. The longest batch comes first, so that a budget too large for the device shows at once.
    """
    # By number where lengths are equal, so that the order does not depend on the order of the data.
    ordered = sorted(queries, key=lambda query: (-len(query), query.index))
    batches: list[list[Query]] = []
    for group in groups(len(ordered)):
        members = [ordered[row] for row in group]
        # The first query of a batch is its longest, so its length times the rows counts padding too.
        if batches and (len(batches[-1]) + len(members)) * len(batches[-1][0]) <= batch_tokens:
            batches[-1] += members
        elif members:
            batches.append(members)
    return batches


def collate(queries: Sequence[Query]) -> QueryBatch:
    """Queries side by side as tensors."""
    # With at most one branch per query the row is plain causal text, and attention needs no mask.
    branched = max(sum(map(bool, query.branches)) for query in queries) > 1
    rows = [_row(query) for query in queries]
    # Each entry: index in the row whose logits are read, token, answer.
    scored = [(row, entry) for row, query in enumerate(queries) for entry in _scored(query)]
    # Answers share places (all first tokens are read at the prompt's end): logits are computed once for each.
    places = list(dict.fromkeys((row, place) for row, (place, _, _) in scored))
    number = {place: count for count, place in enumerate(places)}
    return QueryBatch(
        query_ids=torch.tensor([query.index for query in queries]),
        gold=torch.tensor([query.gold for query in queries]),
        # What pads tokens and positions does not matter, since nothing causal looks to its right.
        token_ids=_padded([tokens for tokens, _, _ in rows], 0),
        positions=_padded([positions for _, positions, _ in rows], 0),
        branches=_padded([branches for _, _, branches in rows], -1) if branched else None,
        probe_index=torch.tensor([query.probe_index for query in queries]),
        logit_rows=torch.tensor([row for row, _ in places]),
        logit_tokens=torch.tensor([place for _, place in places]),
        scored_logits=torch.tensor([number[row, place] for row, (place, _, _) in scored]),
        scored_ids=torch.tensor([token for _, (_, token, _) in scored]),
        scored_rows=torch.tensor([row for row, _ in scored]),
        scored_answers=torch.tensor([answer for _, (_, _, answer) in scored]),
        answers=max(len(query.answers) for query in queries),
        answer_counts=torch.tensor([len(query.answers) for query in queries]),
    )


def _row(query: Query) -> tuple[list[int], list[int], list[int]]:
    """Tokens, positions and branch numbers of a query's row."""
    start = len(query.prompt_ids)
    tokens, positions, branches = list(query.prompt_ids), list(range(start)), [0] * start
    for number, branch in enumerate(query.branches, start=1):
        tokens += branch
        # Every answer follows the prompt directly, so each branch starts again at the prompt's end.
        positions += range(start, start + len(branch))
        branches += [number] * len(branch)
    return tokens, positions, branches


def _scored(query: Query) -> list[tuple[int, int, int]]:
    """For each answer token: the index in the row whose logits predict it, the token, and its answer."""
    entries, start = [], len(query.prompt_ids)
    for number, (answer, branch) in enumerate(zip(query.answers, query.branches, strict=True)):
        # The first token is read at the prompt's end, each later one at the token before it in its own branch.
        places = [len(query.prompt_ids) - 1, *range(start, start + len(answer) - 1)]
        entries += [(place, token, number) for place, token in zip(places, answer, strict=True)]
        start += len(branch)
    return entries


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)
