"""What a user can set about pre-training: the keys of `train.yaml` and the flags of `lightning-icl pretrain`."""

from dataclasses import dataclass

from lightning_icl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Train a small Llama-shaped model from scratch on few-shot documents made by rule."""

    out: str
    """Folder for the finished model; it must not exist yet unless `overwrite` is set."""
    seed: int = 1
    """Seed of weights and documents."""
    layers: int = 4
    """Number of blocks."""
    width: int = 192
    """Width of the residual stream."""
    heads: int = 6
    """Attention heads in a block."""
    momentum: float | None = None
    """η of momentum attention, strictly between 0 and 1; without it attention is plain."""
    learn_momentum: bool = False
    """Learn η, one for each head, from `momentum` on."""
    vocabulary: int = 3072
    """Tokens of the byte-level BPE tokenizer."""
    context: int = 2048
    """Positions the finished model claims."""
    block: int = 1024
    """Tokens in a training document."""
    short_block: int = 256
    """Tokens of a training document in the first steps; must divide `block`."""
    short_steps: int = 1000
    """Steps with short documents."""
    batch: int = 8
    """Documents in a step."""
    steps: int = 1500
    """Optimiser steps."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup: int = 100
    """Steps of linear warm-up, followed by cosine decay to a tenth of the peak."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    clip: float = 1.0
    """Gradient norm above which gradients are scaled down."""
    answer_weight: float = 5.0
    """Weight of answer tokens in the loss; all others weigh 1."""
    natural_share: float = 0.4
    """Share of documents whose label words mean their classes."""
    repeat_share: float = 0.3
    """Share of short documents that go round among a few examples."""
    precision: str = "32-true"
    """Number type of the Trainer."""
    accelerator: str = "auto"
    """Kind of device, as in Lightning's Trainer."""
    checkpoint_every: int = 100
    """Steps between checkpoints, from which an interrupted run goes on."""
    overwrite: bool = False
    """Replace a model that the output folder already holds."""

    def __post_init__(self) -> None:
        """Check the numbers against each other.

        Raises:
            UserError: naming the setting and what it must be.
        """
        for name in ("layers", "width", "heads", "block", "batch", "steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}: it must be at least 1.")
        if self.momentum is not None and not 0 < self.momentum < 1:
            raise UserError(f"momentum = {self.momentum}: it must lie strictly between 0 and 1.")
        if self.learn_momentum and self.momentum is None:
            raise UserError("learn_momentum needs a first value: set momentum too, to 0.9 for instance.")
        if self.width % (2 * self.heads):
            raise UserError(f"width = {self.width}: it must be a multiple of twice the heads ({self.heads}).")
        if self.block > self.context:
            raise UserError(f"block = {self.block}: it must not exceed the context ({self.context}).")
        if self.block % self.short_block:
            raise UserError(f"short_block = {self.short_block}: it must divide block ({self.block}).")
        if not 0 <= self.natural_share <= 1:
            raise UserError(f"natural_share = {self.natural_share}: it must lie between 0 and 1.")
