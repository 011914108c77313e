"""What a user can set about pre-training: the keys of `train.yaml` and the flags of `lightning-icl pretrain`."""

import math
from dataclasses import dataclass
from typing import Literal

from lightning_icl.attention.form_names import Form, check_form
from lightning_icl.errors import UserError, shown
from lightning_icl.lightning_parts import LoggerName, check_logger
from lightning_icl.setting_ranges import check_counts, check_devices, check_rate, check_seed

# What describes a model of fresh weights.
_OF_FRESH = ("model", "layers", "width", "heads", "vocabulary", "context")
_COUNTS = (
    "layers", "width", "heads", "context", "block", "short_block", "batch", "accumulate", "steps", "adapt_shots",
    "validate_every", "checkpoint_every",
)  # fmt: skip
_LEAST = {
    "vocabulary": 258,  # every byte and two special tokens
    **dict.fromkeys(("short_steps", "warmup", "clip", "weight_decay", "answer_weight", "decay_power"), 0),
}
_MOST = {"layers": 1_000, "width": 65_536, "heads": 4_096, "vocabulary": 4_000_000, "context": 2**24, "block": 2**24}
# 16-true is missing on purpose: weights in float16 alone become NaN.
PRECISIONS = ("32-true", "bf16-true", "bf16-mixed", "16-mixed", "64-true", "32", "bf16", "16", "64")


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Train a causal language model, fresh or from existing weights, on text, generated documents, or both."""

    out: str
    """Folder for the finished model; it must not exist yet unless `overwrite` is set."""
    seed: int = 1
    """Seed of weights and documents."""
    text: str | None = None
    """Text to train on: files and folders of .txt files, a document each, with commas between them, or rows of a data
    set of the hub, `hub:NAME:CONFIG:FIELD` (field `text` where left out)."""
    text_share: float = 1.0
    """Share of blocks that are text where `text` is given; the rest are few-shot documents made by rule."""
    validation_text: str | None = None
    """Held-out text in the same form, for validation loss and perplexity."""
    separate_documents: bool = False
    """Restart positions at every document of a block, so that no attention crosses from one into another."""
    tokenizer: str | None = None
    """Built-in name, hub name or folder of a tokenizer; without it that of `init`, or else a byte-level BPE tokenizer
    is trained on what the model reads."""
    init: str | None = None
    """Model whose weights training begins with: a built-in name, a folder, or a hub name; without it they are fresh."""
    allow_pickle: bool = False
    """Let the weights of `init` be read from pickle files, which can run code, where there are no safetensors."""
    trust_remote_code: bool = False
    """Let code that comes with the model of `init` run."""
    model: str | None = None
    """`random:NAME`, hub name or folder of a configuration to train afresh; without it, and without `init`, a Llama
    shape as given below."""
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
    momentum_form: Form = "sum"
    """What momentum adds: `sum`, the paper's moving sum of values; `mean`, the sum divided by its weights' η/(1 − η);
    or `previous`, the value of the token before alone, a control that needs no `momentum`."""
    gate_init: float | None = None
    """First value of a learnt gate of momentum for each head; 0 starts as plain attention, and without it there is no
    gate."""
    only_momentum: bool = False
    """Train gates and η alone; everything else stays as it is."""
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
    """Blocks in a step, over all devices."""
    accumulate: int = 1
    """Parts that each device's share of a step is computed in, one after the other, where memory is short."""
    steps: int = 1500
    """Optimiser steps."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup: int = 100
    """Steps of linear warm-up before decay."""
    decay: Literal["cosine", "polynomial"] = "cosine"
    """How the rate falls after warm-up until the last step."""
    decay_power: float = 1.0
    """Power of polynomial decay; 1 is a straight line."""
    end_share: float = 0.1
    """Share of the peak rate that is left at the last step."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    clip: float = 1.0
    """Gradient norm above which gradients are scaled down."""
    answer_weight: float = 5.0
    """Weight of answer tokens in the loss; all others weigh 1."""
    adapt_rate: float | None = None
    """Rate of single key/value steps on a document's examples after which the model is to answer the others zero-shot,
    learnt beside everything else; without it the model learns no such thing."""
    adapt_shots: int = 32
    """Examples that those steps are taken on, at most."""
    natural_share: float = 0.4
    """Share of documents whose label words mean their classes."""
    named_share: float = 0.0
    """Share of inference documents labelled with the words that their question names, in a random order."""
    repeat_share: float = 0.3
    """Share of short documents that go round among a few examples."""
    precision: str = "32-true"
    """Number type of the Trainer: 32-true, bf16-mixed, bf16-true, 16-mixed or 64-true."""
    compile: bool = False
    """Compile the loss by torch.compile, which needs a C++ compiler: steps become faster after a minute or two."""
    accelerator: str = "auto"
    """Kind of device, as in Lightning's Trainer."""
    devices: int | str = 1
    """Devices on each machine, as in Lightning's Trainer."""
    num_nodes: int = 1
    """Machines, as in Lightning's Trainer."""
    strategy: str = "auto"
    """How devices work together, as in Lightning's Trainer."""
    logger: LoggerName = "csv"
    """Where losses go besides the model's own log; tensorboard must be installed."""
    validate_every: int = 500
    """Steps between two validations."""
    checkpoint_every: int = 100
    """Steps between checkpoints, from which an interrupted run goes on."""
    overwrite: bool = False
    """Replace a model that the output folder already holds."""

    def __post_init__(self) -> None:
        """Check the numbers, alone and against each other.

        Raises:
            UserError: naming the setting and what it must be.
        """
        self._check_numbers()
        check_devices(self)
        check_logger(self.logger)
        for name in _OF_FRESH if self.init is not None else ():
            # A default that was not typed counts as not given.
            if getattr(self, name) != getattr(PretrainSettings, name):
                raise UserError(
                    f"{name} = {getattr(self, name)!r} is for fresh weights, but init = {self.init!r} brings its own "
                    "shape and vocabulary. Give one of the two."
                )
        # Answers are told by their weight, so without a weight there is nothing to ask.
        if self.adapt_rate is not None and not (self.adapt_rate > 0 and self.answer_weight > 1):
            raise UserError(
                f"adapt_rate = {self.adapt_rate}: it must be positive, and answer_weight ({self.answer_weight}) more "
                "than 1, by which answers are told from the rest."
            )
        self._check_momentum()
        # Rotary embedding turns pairs of numbers within a head.
        if self.width % (2 * self.heads):
            raise UserError(f"width = {self.width}: it must be a multiple of twice the heads ({self.heads}).")
        if self.model is None and self.init is None and self.block > self.context:
            raise UserError(f"block = {self.block}: it must not exceed the context ({self.context}).")
        if self.block % self.short_block:
            raise UserError(f"short_block = {self.short_block}: it must divide block ({self.block}).")
        for name in ("natural_share", "named_share", "repeat_share", "text_share", "end_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} = {getattr(self, name)}: it must lie between 0 and 1.")
        # `auto` devices are not known yet; the data module checks again.
        parts = self.accumulate * self.num_nodes * (self.devices if isinstance(self.devices, int) else 1)
        if self.batch % max(1, parts):
            raise UserError(
                f"batch = {self.batch}: it must be a multiple of devices x num_nodes x accumulate ({parts}), so that "
                "all parts are of one size."
            )

    def _check_numbers(self) -> None:
        """Check each number alone."""
        check_counts(self, *_COUNTS)
        check_seed("--seed", self.seed)
        for name in ("learning_rate", "adapt_rate"):
            if getattr(self, name) is not None:
                check_rate(f"--{name.replace('_', '-')}", getattr(self, name))
        for name, least in _LEAST.items():
            # Also refuses NaN, which compares false to everything.
            if not least <= getattr(self, name) < float("inf"):
                raise UserError(f"{name} = {getattr(self, name)}: it must be at least {least}.")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise UserError(f"{name} = {getattr(self, name)}: it must be at most {most:,}.")
        if self.precision not in PRECISIONS:
            raise UserError(
                f"--precision {shown(self.precision)}: choose one of {', '.join(PRECISIONS)}. Weights in float16 alone "
                "become NaN when they are trained."
            )

    def _check_momentum(self) -> None:
        """Check the settings of momentum against each other."""
        previous = check_form(self.momentum_form) == "previous"
        if self.momentum is not None and not 0 < self.momentum < 1:
            raise UserError(f"momentum = {self.momentum}: it must lie strictly between 0 and 1.")
        if previous and (self.momentum is not None or self.learn_momentum):
            raise UserError("momentum_form = 'previous' has no eta: leave momentum and learn_momentum out.")
        if self.learn_momentum and self.momentum is None:
            raise UserError("learn_momentum needs a first value: set momentum too, to 0.9 for instance.")
        if not self.has_momentum and (self.momentum_form != "sum" or self.gate_init is not None):
            raise UserError("momentum_form and gate_init need momentum: set momentum too, to 0.9 for instance.")
        if self.gate_init is not None and not math.isfinite(self.gate_init):
            raise UserError(f"gate_init = {self.gate_init}: give a finite number, or leave it out for no gates.")
        if self.only_momentum and self.gate_init is None and not self.learn_momentum:
            raise UserError("only_momentum has nothing to train: set gate_init, to 0 for instance, or learn_momentum.")

    @property
    def has_momentum(self) -> bool:
        """Whether momentum is added to attention."""
        return self.momentum is not None or self.momentum_form == "previous"

    @property
    def read_share(self) -> float:
        """Share of blocks that are text."""
        return self.text_share if self.text is not None else 0.0
