"""What a user can set about the dual form: the flags of `lightning-icl dual-form`.

Light on purpose: `--help` reads this file and must answer at once.
"""

from dataclasses import dataclass, fields
from typing import Literal

from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DualSettings:
    """In-context learning and fine-tuning as updates of the same matrices."""

    model: str = "builtin"
    """The model under study: `builtin`, a hub name, a folder, or `random:NAME` for fresh weights."""
    task: str = "tiny-sst2"
    """What is asked: task names with commas between them, `builtin`, `paper`, or a YAML file of your own."""
    layers: str = "all"
    """Layers to look at, counted from 0: `all`, or numbers and ranges such as 0-3 or 0,2,5-7."""
    rank: int = 4
    """Leading singular vectors that span the subspaces whose principal angles are compared."""
    data: str | None = None
    """Folder with TASK/{train,validation}.{jsonl,csv,parquet}; without it rows come from the task's own source."""
    shots: int = 32
    """Demonstrations asked for; where the context holds fewer, the number used is reported."""
    seed: int | Literal["published"] = 1
    """Seed of the shuffle that picks the demonstrations; `published` takes the paper's for its tasks and models."""
    lr: float | Literal["published"] | None = None
    """Learning rate of fine-tuning; without it the paper's rate for its tasks, else the task's own."""
    limit: int = 64
    """Number of queries, the first of the fixed shuffle."""
    template: str | None = None
    """Variant of the prompt template, such as `program` or `paper`; without it the task's default."""
    probe_token: Literal["prompt", "answer"] = "prompt"
    """The token looked at: the prompt's last, or the first answer word put behind it as the paper's program does."""
    separator: Literal["eos", "newline"] = "eos"
    """What closes each demonstration in the prompt."""
    precision: str = "32-true"
    """Number type of model and Trainer: 32-true, bf16-true, bf16-mixed or 64-true (in short 32, bf16, 64)."""
    batch_tokens: int = 512
    """Tokens in a batch of queries, padding counted; keys and values of the chosen layers are held for one batch."""
    accelerator: str = "auto"
    """Kind of device, as in Lightning's Trainer."""
    out: str | None = None
    """Folder for the run, one folder inside it for each task; without it runs/MODEL-DATE-TIME."""
    overwrite: bool = False
    """Replace a run that the output folder already holds."""
    export: bool = False
    """Also draw heat maps of layers and heads, as PNG and SVG, into the run."""
    synthetic: bool = False
    """Only the cases whose answer is known: attention built by hand against steps of gradient descent. No model."""
    allow_pickle: bool = False
    """Read weights from pickle files where a model has no safetensors; they can run code."""
    trust_remote_code: bool = False
    """Let a model's own code from the hub run."""

    def __post_init__(self) -> None:
        """Check what can be checked alone.

        Raises:
            UserError: a number out of range, or layers that cannot be read.
        """
        if self.rank < 1:
            raise UserError(f"--rank {self.rank}: it must be at least 1.")
        _parts(self.layers)
        self.comparison()

    def comparison(self) -> CompareSettings:
        """What the dual form shares with a comparison, on one device."""
        shared = {field.name for field in fields(CompareSettings)} & {field.name for field in fields(self)}
        return CompareSettings(**{name: getattr(self, name) for name in shared})


def parse_layers(text: str, count: int) -> tuple[int, ...]:
    """Layer numbers of a text such as `all`, `0-3` or `0,2,5-7`, in order, for a model of `count` layers.

    Raises:
        UserError: the text cannot be read, or names a layer that the model does not have.

    >>> parse_layers("5-7,0,2", 8)
    (0, 2, 5, 6, 7)
    """
    layers = sorted({layer for part in _parts(text) or [range(count)] for layer in part})
    if layers[-1] >= count:
        raise UserError(
            f"--layers {text}: the model has no layer {layers[-1]}. Its layers are 0 to {count - 1}; "
            f"give `all` or some of them, such as 0-{count - 1}."
        )
    return tuple(layers)


def _parts(text: str) -> list[range]:
    """The ranges of layers in a text; none for `all`."""
    if text.strip() == "all":
        return []
    ranges = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise UserError(
                f"--layers {text}: {part.strip()!r} is no layer and no range of layers. Give `all`, or numbers and "
                "ranges from low to high with commas between them, such as 0-3 or 0,2,5-7."
            )
        ranges.append(range(int(first), int(last) + 1))
    return ranges
