"""The LightningDataModule: demonstrations for `Trainer.fit`, query batches for `Trainer.validate`.

Queries are divided among processes without padding or repetition; demonstrations are not divided at all, because
every process takes the same fine-tuning steps.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_icl.data._chat import chat_layout
from lightning_icl.data._demonstrations import Example, choose_demonstrations
from lightning_icl.data._layout import Encoded, plain_layout
from lightning_icl.data.batches import share_loader
from lightning_icl.data.queries import Query, collate
from lightning_icl.data.settings import BatchTokens, DataSettings, ProbeToken
from lightning_icl.errors import TaskError, shown
from lightning_icl.file_names import input_path
from lightning_icl.records import Demonstrations, QueryBatch
from lightning_icl.tasks.rows import QUERY_SEED, Row, TaskRows, load_rows, query_order, shuffled_train
from lightning_icl.tasks.task import Task
from lightning_icl.tasks.template import template_fields

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def demonstration_steps(demonstrations: Demonstrations) -> DataLoader[Tensor]:
    """The fine-tuning examples `BOS ex_i` in prompt order, one a batch."""
    steps = [torch.tensor([*demonstrations.bos, *example]) for example in demonstrations.examples]
    return DataLoader(steps, batch_size=1, shuffle=False)  # type: ignore[arg-type]


class ICLDataModule(LightningDataModule):
    """A task as a data module: everything is read, checked and encoded here, before any weights are loaded.

    Args:
        task: the task.
        tokenizer: the model's tokenizer.
        context_length: positions of the model; None for no limit.
        data: folder with `<task>/{train,validation}.{jsonl,csv,parquet}`; None for the task's own source.
        shots: demonstrations asked for; fewer are used where the context is full.
        seed: seed of the shuffle that picks the demonstrations.
        limit: number of queries; None for the first 2,000 of the fixed shuffle.
        template: variant of the prompt template; None for the task's default.
        separator: what closes a demonstration: `eos`, `newline`, any other text, or `auto` for what fits the tokenizer.
        chat: whether demonstrations are turns of user and assistant, written by the tokenizer's chat template.
        probe_token: which token is probed.
        batch_tokens: tokens in a batch of queries, padding counted, or `auto`; a batch has three queries at least.

    Raises:
        TaskError: rows, answers, or lengths do not fit.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        context_length: int | None,
        data: Path | None = None,
        shots: int = 32,
        seed: int = 1,
        limit: int | None = None,
        template: str | None = None,
        separator: str = "auto",
        chat: bool = False,
        probe_token: ProbeToken = "prompt",
        batch_tokens: BatchTokens = "auto",
    ) -> None:
        super().__init__()
        # Checked before rows are read, which may take a download.
        if shots < 1:
            raise TaskError(f"--shots {shots}: in-context learning needs at least 1 demonstration.")
        self.task = task
        self.template = task.template(template)
        self.probe_token: ProbeToken = probe_token
        self.batch_tokens = batch_tokens
        self.tokenizer, self._variant = tokenizer, template
        # The layout comes first: everything below encodes through it.
        self.layout = chat_layout(tokenizer) if chat else plain_layout(tokenizer, separator)
        self._check_template()
        rows: TaskRows = load_rows(task, data, template)
        self.origin, self._rows, self._context_length = rows.origin, rows, context_length
        # An ordered set of answers whose boundary was not kept; see `joined_answers`.
        self._joined: dict[str, None] = {}
        self.query_rows = query_order(rows, limit)
        # Queries are encoded before demonstrations: the longest decides how many demonstrations fit.
        self.queries = [self._query(row) for row in self.query_rows]
        self._check_lengths(context_length, len(self.layout.bos))
        self.train_rows = shuffled_train(rows, seed)[:shots]
        self.demonstrations = choose_demonstrations(
            [self._example(row) for row in self.train_rows],
            shots=shots,
            seed=seed,
            bos=self.layout.bos,
            sep=self.layout.sep,
            longest_query=self.longest_query,
            context_length=context_length,
        )
        self._check_whole()

    @property
    def answers(self) -> tuple[tuple[int, ...], ...]:
        """Tokens of the answers that all rows share, as behind the first query; none where rows have their own."""
        return self.queries[0].answers if self.task.answers else ()

    def word_ids(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Tokens that other answer words have behind the first query.

        Raises:
            TaskError: they cannot be told apart by their tokens.
        """
        return self._encoded(self.query_rows[0], words).answers

    @property
    def joined_answers(self) -> tuple[str, ...]:
        """Answers whose beginning the tokenizer would join with a prompt's end; they are encoded apart instead."""
        return tuple(self._joined)

    @property
    def repeated_queries(self) -> int:
        """How many queries have the same prompt as a demonstration, so that their answer can be copied from it."""
        demonstrated = {self._prompt(row) for row in self.train_rows[: len(self.demonstrations)]}
        return sum(query.prompt_ids in demonstrated for query in self.queries)

    @property
    def demonstration_options(self) -> tuple[int, ...]:
        """How many answers each demonstration has to choose from."""
        return tuple(len(row.options) for row in self.train_rows[: len(self.demonstrations)])

    @property
    def longest_query(self) -> int:
        """Tokens of the longest query together with its answer."""
        return max(query.reach for query in self.queries)

    @property
    def prefix_lengths(self) -> tuple[int, int]:
        """Tokens before a query, without demonstrations and with them."""
        return len(self.demonstrations.bos), len(self.demonstrations.prefix_token_ids)

    def relabelled(self, labels: Sequence[int], words: Sequence[str] | None = None) -> Demonstrations:
        """The same demonstrations in the same order with other answers.

        Args:
            labels: number of each demonstration's answer.
            words: what the answers are; None for each row's own options.

        Raises:
            TaskError: the answers are so long that the longest query no longer fits behind them.
        """
        examples = tuple(
            self._demonstration(row, (words or row.options)[label])
            for row, label in zip(self.train_rows[: len(self.demonstrations)], labels, strict=True)
        )
        changed = replace(self.demonstrations, labels=tuple(labels), examples=examples)
        # Other words have other lengths: what fitted before may not fit now.
        reach = len(changed.prefix_token_ids) + self.longest_query
        if self._context_length is not None and reach > self._context_length:
            raise TaskError(f"With these answers prompts have {reach} tokens; the context has {self._context_length}.")
        return changed

    def content_free(self, texts: Sequence[str]) -> QueryBatch:
        """Queries with the same uninformative text in every field.

        Args:
            texts: one query each, such as "N/A".
        """
        row, queries = self.query_rows[0], []
        for number, text in enumerate(texts):
            # Other keys of the row (its label, its place) stay, so that messages can still name a row.
            fields = dict.fromkeys(row.fields, text)
            queries.append(self._query(replace(row, index=number, fields=fields)))
        return collate(queries)

    def teaching(self, demonstrations: Demonstrations) -> "ICLDataModule":
        """The same task with other demonstrations to learn from."""
        # A shallow copy: queries and rows are shared, and only the demonstrations differ.
        other = copy.copy(self)
        other.demonstrations = demonstrations
        return other

    @property
    def query_texts(self) -> dict[int, str]:
        """The prompt of each query as text, by row number."""
        return {row.index: self.task.prompt(row.fields, self._variant) for row in self.query_rows}

    @property
    def demonstration_texts(self) -> list[str]:
        """Each demonstration as text, prompt and answer, in prompt order."""
        used = self.train_rows[: len(self.demonstrations)]
        return [f"{self.task.prompt(row.fields, self._variant)} {row.options[row.label]}" for row in used]

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the `rows` as they were read, the `task` that makes prompts of them, and the `tokens` of these."""
        # Only fields that the template reads: others cannot change a result.
        names = tuple(template_fields(self.template))
        rows = [
            ([row.fields.get(name) for name in names], row.options, row.label)
            for row in (*self._rows.train, *self._rows.queries)
        ]
        task = (type(self.task).__name__, self.task.name, self.template, self.task.answers)
        # The count tells where training rows end in the list, so moving one across the boundary changes the hash.
        return {"rows": _hash((len(self._rows.train), rows)), "task": _hash(task), "tokens": self.tokens_fingerprint}

    @cached_property
    def tokens_fingerprint(self) -> str:
        """SHA-256 of the tokens of demonstrations, queries and answers.

        Tokenizer, special tokens and chat template may change while rows and task stay.
        """
        return _hash((self.demonstrations.hash, [(query.prompt_ids, query.answers) for query in self.queries]))

    @property
    def token_ids(self) -> set[int]:
        """Every token that the model is to read, of prompt, queries and answers."""
        queries = (part for query in self.queries for part in (query.prompt_ids, *query.answers))
        return set(self.demonstrations.prefix_token_ids).union(*queries)

    def held_out(self, count: int, used: Iterable[Demonstrations]) -> list[Query]:
        """Rows of the training split as queries, for choosing settings without the reported queries.

        Args:
            count: how many at most.
            used: every set of demonstrations in play. Their rows are left out, and so is any row whose prompt a
                reported query or a demonstration repeats, or that the context cannot hold.
        """
        sets = list(used)
        # By index and by prompt below: data sets hold the same text twice.
        taken = {index for chosen in sets for index in chosen.indices}
        excluded_prompts = {query.prompt_ids for query in self.queries}
        excluded_prompts |= {self._prompt(row) for row in self._rows.train if row.index in taken}
        space = float("inf") if self._context_length is None else self._context_length - len(self.demonstrations.bos)
        queries: list[Query] = []
        # The seed of queries and not of demonstrations: the choice must not move with the run's seed.
        for row in shuffled_train(self._rows, QUERY_SEED):
            if len(queries) == count:
                break
            if row.index not in taken:
                query = self._query(row)
                if query.prompt_ids not in excluded_prompts and query.reach <= space:
                    queries.append(query)
        return queries

    def _prompt(self, row: Row) -> tuple[int, ...]:
        return self._encoded(row, ()).prompt

    def _example(self, row: Row) -> Example:
        return Example(index=row.index, label=row.label, token_ids=self._demonstration(row, row.options[row.label]))

    def _demonstration(self, row: Row, word: str) -> tuple[int, ...]:
        encoded = self._encoded(row, (word,))
        return encoded.prompt + encoded.answers[0]

    def _query(self, row: Row) -> Query:
        encoded = self._encoded(row, row.options)
        return Query(
            index=row.index,
            gold=row.label,
            prompt_ids=encoded.prompt,
            answers=encoded.answers,
            probe_token=self.probe_token,
        )

    def _encoded(self, row: Row, words: Sequence[str]) -> Encoded:
        """Tokens of a row's prompt and of answers behind it."""
        text = self.task.prompt(row.fields, self._variant)
        try:
            # Texts that rows bring themselves may hold anything; words that a task's author chose should be in the
            # vocabulary.
            encoded = self.layout.encode(text, words, unknown=row.options != self.task.answers)
        except TaskError as error:
            raise TaskError(f"{row.place}: {error}") from error
        for word in encoded.joined:
            self._joined[word] = None
        return encoded

    def _check_template(self) -> None:
        """Check that the template spells no special token: all of a prompt is read as text, so it would not be one."""
        spelt = next((text for text in self.layout.special.values() if text.strip() and text in self.template), None)
        if spelt is not None:
            raise TaskError(
                f"Task {self.task.name!r}: the template spells the special token {shown(spelt)}, but prompts are "
                "read as text. Leave it out: --chat writes turns of a chat, --separator what closes a demonstration."
            )

    def _check_whole(self) -> None:
        """Check that the first query behind the demonstrations has the tokens that a chat template would give it."""
        used = self.train_rows[: len(self.demonstrations)]
        turns = [(self.task.prompt(row.fields, self._variant), row.options[row.label]) for row in used]
        query = self.task.prompt(self.query_rows[0].fields, self._variant)
        whole = [*self.demonstrations.prefix_token_ids, *self.queries[0].prompt_ids]
        self.layout.check_whole(turns, query, whole)

    def _check_lengths(self, context_length: int | None, bos: int) -> None:
        longest = max(self.queries, key=lambda query: query.reach)
        if context_length is not None and bos + longest.reach > context_length:
            raise TaskError(
                f"Query {longest.index} of task {self.task.name!r} ({self._place(longest)}) has {longest.reach} tokens "
                f"with its answer; the model's context has {context_length}. Use a model with a longer context, a "
                "shorter template, or leave the row out."
            )

    def _place(self, query: Query) -> str:
        # Looked up only for a message.
        return next(row.place for row in self.query_rows if row.index == query.index)

    def teardown(self, stage: str) -> None:
        """Let go of the Trainer: through it, what a task has learnt would live as long as its data."""
        self.trainer = None

    def train_dataloader(self) -> DataLoader[Tensor]:
        """One demonstration a batch, in prompt order."""
        return demonstration_steps(self.demonstrations)

    def val_dataloader(self) -> DataLoader[QueryBatch] | list[DataLoader[QueryBatch]]:
        """This process's share of the query batches; nothing during `Trainer.fit`, which does not probe."""
        # Lightning asks for validation batches before fitting too, and would run a sanity check over them.
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            return []
        return share_loader(self.queries, self.batch_tokens, self.trainer)


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def load_data(
    settings: DataSettings,
    task: Task,
    tokenizer: "PreTrainedTokenizerBase",
    context_length: int | None,
    *,
    shots: int,
    seed: int,
) -> ICLDataModule:
    """A task's data module as the settings have it; see `ICLDataModule` for arguments and errors."""
    # By name, so that a new field of the settings needs no line here.
    options = {field.name: getattr(settings, field.name) for field in fields(DataSettings) if field.name != "task"}
    if settings.data is not None:
        options["data"] = input_path(settings.data, "--data")
    return ICLDataModule(task, tokenizer, context_length=context_length, shots=shots, seed=seed, **options)
