"""What a user can set about the ladder of weight updates: the flags of `lightning-icl weight-update`.

Imports nothing heavy: `--help` reads this file and must answer at once.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from lightning_icl.comparison.settings import OneDeviceSettings
from lightning_icl.errors import UserError, did_you_mean, shown
from lightning_icl.models.scope import Scope
from lightning_icl.setting_ranges import check_counts

FastRung = Literal["constant", "constant-mass", "affine"]
"""Rungs whose size does not depend on the number of demonstration tokens."""
Rung = Literal["none", "linear-raw", "linear", "constant", "constant-mass", "affine", "quadratic"]
"""All rungs below softmax attention."""


@dataclass(frozen=True, kw_only=True)
class WeightUpdateSettings(OneDeviceSettings):
    """Demonstrations replaced by an update of each head."""

    scope: Scope = "probe"
    """Whose attention to the demonstrations is replaced: the prompt's last token's (`probe`), that of all tokens of the
    query (`query`), or the last token's while the others do not see the demonstrations (`alone`)."""
    held_out: int = 32
    """Held-out prompts whose mean query vector is the expansion point: training rows, no demonstrations among them."""
    depth: Rung | None = None
    """Also put this rung into the layers up to each one, from each one on, and into each one alone."""
    fast_weights: FastRung | None = None
    """Also save this rung's update, which answers queries without the demonstrations; in scope `query` or `alone`."""
    export: bool = False
    """Also draw the figures over rungs and layers, as PNG and SVG, into the run."""

    def __post_init__(self) -> None:
        """Check what can be checked alone.

        Raises:
            UserError: a number out of range, or settings that exclude each other.
        """
        super().__post_init__()
        check_counts(self, "held_out")
        for flag, word, words in (
            ("scope", self.scope, get_args(Scope)),
            ("depth", self.depth, get_args(Rung)),
            ("fast-weights", self.fast_weights, get_args(FastRung)),
        ):
            if word is not None and word not in words:
                raise UserError(f"--{flag} {shown(word)} is not known. {did_you_mean(str(word), words)}")
        if self.probe_token != "prompt":
            raise UserError(
                "--probe-token answer: predictions are made at the prompt's last token, and there attention is "
                "replaced. Leave --probe-token out."
            )
        if self.fast_weights is not None and self.scope == "probe":
            raise UserError(
                "--fast-weights needs --scope query or --scope alone: with --scope probe the other tokens of a query "
                "still attend to the demonstrations."
            )
