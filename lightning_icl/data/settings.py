"""What a user can set about a task's prompts and queries.

A new flag goes here, into `ICLDataModule`, and into that of `front`, whose arguments type checkers read; a test holds
them equal. Imports nothing heavy: `--help` reads this file and must answer at once.
"""

from dataclasses import dataclass
from typing import Literal

from lightning_icl.errors import UserError, shown
from lightning_icl.setting_ranges import check_counts

ProbeToken = Literal["prompt", "answer"]
BatchTokens = int | Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which rows become prompts and queries, and how; every field but `task` is an argument of `ICLDataModule`."""

    task: str = "builtin"
    """What is asked: task names with commas between them, `builtin`, `paper`, or a YAML file of your own."""
    data: str | None = None
    """Folder with TASK/{train,validation}.{jsonl,csv,parquet}; without it rows come from the task's own source."""
    limit: int | None = None
    """Number of queries, the first of the fixed shuffle; without it at most 2,000."""
    template: str | None = None
    """Variant of the prompt template, such as `program` or `paper`; without it the task's default."""
    probe_token: ProbeToken = "prompt"
    """The token looked at: the prompt's last, or that of the first answer (of a row's first option in multiple choice)
    put behind it, right or wrong, as the paper's program does."""
    separator: str = "auto"
    """What closes each demonstration in the prompt: `eos`, `newline`, any other text, or `auto`: a newline where the
    tokenizer has a chat template, since its EOS then ends a turn, and EOS elsewhere."""
    chat: bool = False
    """Write demonstrations as turns of user and assistant with the model's own chat template."""
    batch_tokens: BatchTokens = "auto"
    """Tokens in a batch of queries, padding counted, three queries at least: a number, lower when memory is short, or
    `auto` for one that goes by the kind of device and, with several processes, by their number."""

    def __post_init__(self) -> None:
        """Check what can be checked alone.

        Raises:
            UserError: a number out of range, or flags that exclude each other.
        """
        check_counts(self, "limit", *(() if self.batch_tokens == "auto" else ("batch_tokens",)))
        # Rejected here and not ignored: the user would think the separator was used.
        if self.chat and self.separator != "auto":
            raise UserError(
                f"--chat --separator {shown(self.separator)}: the chat template closes every turn. Leave one out."
            )
