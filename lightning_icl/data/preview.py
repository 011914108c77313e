"""`--show-prompt`: the first zero-shot and in-context inputs token by token, as the model will read them."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from lightning_icl.data.module import ICLDataModule

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Neighbouring tokens alternate in shade, which shows boundaries without adding characters.
_SHADES = ("on grey23", "on grey35")


def show_prompt(data: ICLDataModule, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Print the first query's inputs, which token is probed, and how each answer tokenises."""
    console = Console()
    demonstrations, query, row = data.demonstrations, data.queries[0], data.query_rows[0]
    own = list(query.prompt_ids)
    if query.probe_token == "answer":
        own += query.answers[0]
    console.rule(Text(f"{data.task.name}: query {query.index}, gold {row.options[row.label]!r}"), align="left")
    for name, prefix in (("Zero-shot", demonstrations.bos), ("In-context", demonstrations.prefix_token_ids)):
        console.print(f"\n[bold]{name}[/] ({len(prefix)} + {len(own)} tokens; the last one is probed)")
        # In a file, bars mark the boundaries; wrapping would add line breaks that are not in the prompt.
        console.print(_tokens(tokenizer, [*prefix, *own], bracketed=not console.is_terminal), soft_wrap=True)
    console.print(f"\nBOS {_named(tokenizer, demonstrations.bos)}", markup=False)
    separator = data.layout.separator
    name = f"{separator} " if separator in ("eos", "newline") else ""
    console.print(f"Separator {name}{_named(tokenizer, demonstrations.sep)}", markup=False)
    console.print(
        f"{len(demonstrations)} of {demonstrations.requested} demonstrations, rows "
        f"{', '.join(map(str, demonstrations.indices))} of the training split",
        highlight=False,
    )
    last = own[-1]
    console.print(f"Probe token ({query.probe_token}): {_named(tokenizer, (last,))}", highlight=False, markup=False)
    for word, ids in zip(row.options, query.answers, strict=True):
        console.print(f"Answer {word!r}: {_named(tokenizer, ids)}", highlight=False, soft_wrap=True, markup=False)
    for word in data.joined_answers:
        note = f"The tokenizer joins a prompt's end and the beginning of {word!r}; the answer is encoded apart."
        console.print(note, highlight=False, soft_wrap=True, markup=False)


def _tokens(tokenizer: "PreTrainedTokenizerBase", ids: list[int], bracketed: bool) -> Text:
    """Each token apart: shaded in a terminal, between bars in a file; the last one, which is probed, stands out."""
    text = Text()
    for number, token_id in enumerate(ids):
        # A line break inside a token would look like one between tokens.
        piece = str(tokenizer.decode([token_id])).replace("\n", "\\n")
        style = "bold reverse" if number == len(ids) - 1 else _SHADES[number % 2]
        text.append("|" if bracketed else "")
        text.append(piece, style=style)
    return text.append("|" if bracketed else "")


def _named(tokenizer: "PreTrainedTokenizerBase", ids: tuple[int, ...]) -> str:
    if not ids:
        return "none"
    return " ".join(f"{tokenizer.decode([token_id])!r} ({token_id})" for token_id in ids)
