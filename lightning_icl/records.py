"""What flows between the rooms of the program: demonstrations, conditions, overlays and observations.

Only data lives here: no model, no metric, no file format. The quantities are those of Dai et al. (arXiv 2212.10559),
section 4; letters in docstrings follow the paper.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """The examples in the prompt: one immutable set that in-context learning and fine-tuning both use."""

    indices: tuple[int, ...]
    """Row numbers in the training split as it stands on disk (before the shuffle), in prompt order."""
    labels: tuple[int, ...]
    """Label number of each example: the number of its answer among the row's options."""
    examples: tuple[tuple[int, ...], ...]
    """Token ids of each example (prompt and answer), without BOS and SEP."""
    bos: tuple[int, ...]
    """Token ids that begin every input: the tokenizer's BOS, or nothing where it has none."""
    sep: tuple[int, ...]
    """Token ids that close each demonstration in the prompt."""
    requested: int
    """How many demonstrations were asked for; fewer may fit the context."""
    seed: int
    """Seed of the shuffle of the training split."""

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def prefix_token_ids(self) -> tuple[int, ...]:
        """`BOS ex_1 SEP … ex_K SEP`, the tokens before the query in an in-context input."""
        ids = list(self.bos)
        for example in self.examples:
            ids += [*example, *self.sep]
        return tuple(ids)

    @property
    def first_learnt(self) -> int:
        """Index in `BOS ex_i` of the first token that fine-tuning learns to predict: what precedes it is given."""
        return max(1, len(self.bos))

    @cached_property
    def token_example(self) -> tuple[int, ...]:
        """For each prefix token the number of its demonstration, or -1 for BOS and SEP."""
        numbers = [-1] * len(self.bos)
        for number, example in enumerate(self.examples):
            numbers += [number] * len(example) + [-1] * len(self.sep)
        return tuple(numbers)

    @cached_property
    def token_owner(self) -> tuple[int, ...]:
        """For each prefix token behind BOS its demonstration; a separator belongs to the one that it closes."""
        lengths = (len(example) + len(self.sep) for example in self.examples)
        return tuple(number for number, length in enumerate(lengths) for _ in range(length))

    @cached_property
    def hash(self) -> str:
        """SHA-256 over rows and tokens in order: equal hashes mean that two runs used the same prompt."""
        # `repr` of tuples of integers is the same on every machine and version.
        content = repr((self.indices, self.labels, self.prefix_token_ids))
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(kw_only=True)  # not frozen: the precision plugins of Lightning rebuild a batch field by field
class QueryBatch:
    """Queries side by side, right-padded, without BOS and demonstrations: the same tokens serve every condition.

    A row is `prompt`, or `prompt branch_1 … branch_C` where answers have more tokens than the prompt's last logit can
    score. A branch sees the prompt and itself, never another branch, and its positions continue the prompt's.
    """

    query_ids: Int[Tensor, "batch"]
    """Row number of each query in its data file."""
    gold: Int[Tensor, "batch"]
    """Number of the right answer of each query."""
    token_ids: Int[Tensor, "batch token"]
    """Own tokens, padded at the right with token 0."""
    positions: Int[Tensor, "batch token"]
    """Position of each token, counted from the first own token."""
    branches: Int[Tensor, "batch token"] | None
    """0 for prompt tokens, 1, 2, … for the tokens of each branch; None where there are no branches."""
    probe_index: Int[Tensor, "batch"]
    """Index of the probe token t in the row; the own tokens 0..t are those of the query."""
    logit_rows: Int[Tensor, "logit"]
    """Row of each position whose logits are needed."""
    logit_tokens: Int[Tensor, "logit"]
    """Index in its row of each position whose logits are needed."""
    scored_logits: Int[Tensor, "scored"]
    """For each answer token, which of the logits above predicts it."""
    scored_ids: Int[Tensor, "scored"]
    """Each answer token."""
    scored_rows: Int[Tensor, "scored"]
    """The query each answer token belongs to."""
    scored_answers: Int[Tensor, "scored"]
    """The answer (by number) each answer token belongs to."""
    answers: int
    """How many answers the query with the most has."""
    answer_counts: Int[Tensor, "batch"]
    """How many answers each query has; `scored_answers` of a row are below it."""

    def scoring(self, answer_ids: tuple[int, ...]) -> "QueryBatch":
        """The same batch with other answers scored, one token each in place of one token each."""
        return replace(self, scored_ids=self.scored_ids.new_tensor(answer_ids)[self.scored_answers])

    def to(self, device: torch.device | str) -> "QueryBatch":
        """The same batch on a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def rows(self, start: int, stop: int) -> "QueryBatch":
        """The queries from row `start` to before row `stop`, as a batch of the same width."""
        logits = (self.logit_rows >= start) & (self.logit_rows < stop)
        scored = (self.scored_rows >= start) & (self.scored_rows < stop)
        # Positions that are left get new numbers, to which the scored tokens must point.
        renumbered = logits.cumsum(0) - 1
        per_query = ("query_ids", "gold", "token_ids", "positions", "probe_index", "answer_counts")
        return replace(
            self,
            **{name: getattr(self, name)[start:stop] for name in per_query},
            branches=None if self.branches is None else self.branches[start:stop],
            logit_rows=self.logit_rows[logits] - start,
            logit_tokens=self.logit_tokens[logits],
            scored_logits=renumbered[self.scored_logits[scored]],
            scored_ids=self.scored_ids[scored],
            scored_rows=self.scored_rows[scored] - start,
            scored_answers=self.scored_answers[scored],
        )


@dataclass(frozen=True, kw_only=True)
class KVOverlay:
    """Fine-tuned key/value parameters, to be laid over a model (never a second full model).

    `tensors` holds only what training changed, in float32 or better, under `<parameter name>` for whole parameters and
    under `<parameter name>::kv` for the key/value rows of a fused query-key-value parameter. Controls lay over the
    query projections alone (`::query`), or all parameters.
    """

    tensors: Mapping[str, Tensor]

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names and bits: equal on processes that took the same steps."""
        digest = hashlib.sha256()
        # Sorted, so that the order in which parts were trained does not matter.
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(self.tensors[name].detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


VIEWS = ("zsl", "icl", "ft")
"""Names of the three conditions that the paper compares."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One way of looking at the same query: some tokens before it, and some weights laid over the model.

    Zero-shot is `(BOS, None)`, in-context learning `(BOS and demonstrations, None)`, fine-tuning `(BOS, overlay)`.
    """

    name: str
    prefix_token_ids: tuple[int, ...]
    overlay: KVOverlay | None = None
    position_offset: int = 0
    """Extra positions between the prefix and the query; 0 puts the query right behind it."""
    answer_ids: tuple[int, ...] | None = None
    """One token for each answer, scored in place of the task's own, which must have one token each too."""
    content_free: QueryBatch | None = None
    """Uninformative queries; every query's answer probabilities are divided by theirs."""

    @classmethod
    def zero_shot(cls, demonstrations: Demonstrations) -> "Condition":
        """The query after BOS alone."""
        return cls(name="zsl", prefix_token_ids=demonstrations.bos)

    @classmethod
    def in_context(cls, demonstrations: Demonstrations, name: str = "icl") -> "Condition":
        """The query after the demonstrations; another name for each other set of them."""
        return cls(name=name, prefix_token_ids=demonstrations.prefix_token_ids)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What the model is asked: conditions that are equal here are observed by one pass, and read apart."""
        # By identity: overlays are large, and equal ones are always the same object.
        return self.prefix_token_ids, id(self.overlay), self.position_offset, self.answer_ids


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What one condition shows for a batch of queries, at the probe token t of each (definitions, section 3).

    All tensors are float32, or float64 where the model is. `own` tokens are those of the query itself, up to and
    including t; BOS and the demonstrations belong to the prefix, so that every condition has the same own tokens.
    """

    answer_scores: Float[Tensor, "batch answer"]
    """Mean log-probability of each answer's tokens after the prompt; -inf where a query has fewer answers."""
    attention_output: Float[Tensor, "batch layer width"]
    """h[l]: output of the attention layer after its output projection, before the residual is added."""
    own_scores: Float[Tensor, "batch layer head token"]
    """a[l, h]: scores before softmax from t to the query's own tokens, scaled; 0 beyond `own_lengths`."""
    own_lengths: Int[Tensor, "batch"]
    """How many own tokens each query has."""
    query: Float[Tensor, "batch layer query_width"]
    """q[l]: the query vector at t, heads concatenated, before rotary embedding, after query normalisation."""
    prefix_scores: Float[Tensor, "batch layer prefix"]
    """c[l]: scores before softmax from t to the prefix tokens, summed over heads."""
    prefix_visible: Bool[Tensor, "batch layer prefix"] | None = None
    """Which prefix tokens a sliding window leaves in reach; None where all are."""
    reaches_prefix: Bool[Tensor, "batch layer"] | None = None
    """Where the attention output can depend on the prefix at all: through windows, layer upon layer, a long query's
    probe token may see own tokens alone. None where it can everywhere."""
    epsilon: float = torch.finfo(torch.float32).eps
    """Resolution of the type that the model computed in (`torch.finfo(dtype).eps`)."""
