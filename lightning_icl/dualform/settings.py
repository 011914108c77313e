"""What a user can set about the dual form: the flags of `lightning-icl dual-form`.

Imports nothing heavy: `--help` reads this file and must answer at once.
"""

import re
from dataclasses import dataclass

from lightning_icl.comparison.settings import OneDeviceSettings
from lightning_icl.data.settings import BatchTokens
from lightning_icl.errors import UserError, shown
from lightning_icl.setting_ranges import check_counts


@dataclass(frozen=True, kw_only=True)
class DualSettings(OneDeviceSettings):
    """In-context learning and fine-tuning as updates of the same matrices."""

    batch_tokens: BatchTokens = 512
    """Tokens in a batch of queries, padding counted; keys and values of the chosen layers are held for one batch."""
    layers: str = "all"
    """Layers to look at, counted from 0: `all`, or numbers and ranges such as 0-3 or 0,2,5-7."""
    rank: int = 4
    """Leading singular vectors that span the subspaces whose principal angles are compared."""
    export: bool = False
    """Also draw heat maps of layers and heads, as PNG and SVG, into the run."""
    synthetic: bool = False
    """Only the cases whose answer is known: attention built by hand against steps of gradient descent. No model."""

    def __post_init__(self) -> None:
        """Check what can be checked alone.

        Raises:
            UserError: a number out of range, or layers that cannot be read.
        """
        super().__post_init__()
        check_counts(self, "rank")
        _parts(self.layers)


def parse_layers(text: str, count: int) -> tuple[int, ...]:
    """Layer numbers of a text such as `all`, `0-3` or `0,2,5-7`, in order, for a model of `count` layers.

    Raises:
        UserError: the text cannot be read, or names a layer that the model does not have.

    >>> parse_layers("5-7,0,2", 8)
    (0, 2, 5, 6, 7)
    """
    # `all` gives no parts, hence every layer.
    parts = _parts(text) or [range(count)]
    last = max(part[-1] for part in parts)
    if last >= count:
        raise UserError(
            f"--layers {shown(text, quoted=False)}: the model has no layer {last}. Its layers are 0 to {count - 1}; "
            f"give `all` or some of them, such as 0-{count - 1}."
        )
    return tuple(sorted({layer for part in parts for layer in part}))


def _parts(text: str) -> list[range]:
    """The ranges of layers in a text; none for `all`."""
    if text.strip() == "all":
        return []
    ranges = []
    for part in text.split(","):
        numbers = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        # What does not match becomes a range that is refused below.
        first, last = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (1, 0)
        if first > last:
            raise UserError(
                f"--layers {shown(text, quoted=False)}: {shown(part.strip())} is no layer and no range of layers. Give "
                "`all`, or numbers and ranges from low to high with commas between them, such as 0-3 or 0,2,5-7."
            )
        ranges.append(range(first, last + 1))
    return ranges
