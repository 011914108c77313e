"""Rotary embedding whose angles depend on the length of the whole sequence, which a shared prefix cannot follow.

Of the kinds of scaling in transformers, `longrope` takes other factors beyond the length that a model was first trained
with, and `dynamic` other ones at each length beyond it; `linear`, `proportional`, `yarn` and `llama3` are the same
at every length. The keys of the demonstrations are computed once, before the length of any query is known, so the
prompt of every query must lie on the same side of that length as the demonstrations alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_icl.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, kw_only=True)
class LengthScaling:
    """Scaling that changes with length."""

    kind: str
    """Its `rope_type`."""
    length: int
    """The longest sequence, in tokens, with the factors of short ones."""

    def check(self, prefix: int, longest: int) -> None:
        """Make sure that the prefix and the longest sequence that begins with it have the same angles.

        Args:
            prefix: tokens that stand before every query.
            longest: tokens of prefix, longest query and answer together, or its last position plus one.

        Raises:
            ModelError: they have not.
        """
        # `longrope` has one set of factors beyond the length, `dynamic` a new one at each length.
        alike_when_long = self.kind == "longrope" and prefix > self.length
        if longest <= self.length or alike_when_long:
            return
        more = f", or more of them, so that they alone have over {self.length}" if self.kind == "longrope" else ""
        raise ModelError(
            f"This model's rotary scaling {self.kind!r} changes its angles beyond {self.length} tokens: the prompt "
            f"before the query has {prefix}, with the longest query {longest}, and its keys cannot serve both. Use "
            f"fewer --shots, so that whole prompts have at most {self.length} tokens{more}."
        )


def length_scaling(config: "PretrainedConfig") -> LengthScaling | None:
    """The scaling of a model that changes with length; the shortest where layers have several; None without any."""
    parameters = getattr(config, "rope_parameters", None) or {}
    # Gemma 3 has parameters by kind of layer, the others one set.
    of_layers = [value for value in parameters.values() if isinstance(value, Mapping)] or [parameters]
    scalings = []
    for scaling in of_layers:
        kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
        if kind == "longrope":
            scalings.append(LengthScaling(kind=kind, length=int(scaling["original_max_position_embeddings"])))
        elif "dynamic" in kind:
            scalings.append(LengthScaling(kind=kind, length=int(config.max_position_embeddings)))
    return min(scalings, key=lambda scaling: scaling.length, default=None)


def check_lengths(config: "PretrainedConfig", prefixes: Iterable[int], longest_query: int) -> None:
    """Make sure that each prefix has the same angles alone and with the longest query.

    Args:
        config: of the model.
        prefixes: lengths, in tokens, of what queries are to stand behind.
        longest_query: tokens of the longest query with its answer.

    Raises:
        ModelError: one has not.
    """
    scaling = length_scaling(config)
    if scaling is not None:
        for prefix in prefixes:
            scaling.check(prefix, prefix + longest_query)
