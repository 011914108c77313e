"""Which tasks and models there are: the listings of `lightning-icl tasks` and `lightning-icl models`."""

from rich.markup import escape
from rich.table import Table

from lightning_icl.console import terminal
from lightning_icl.models.architecture import ARCHITECTURES, REFUSED
from lightning_icl.models.finding import BUILTIN
from lightning_icl.models.packaged import PACKAGED, installed_pieces
from lightning_icl.tasks.catalogue import GROUPS, TASKS
from lightning_icl.tasks.task import HubSource, Task


def print_tasks() -> None:
    """Every task known by name: answers, template variants, and where its rows come from."""
    table = Table(title="Tasks (--task NAME, names with commas between them, or a group)", title_justify="left")
    for column in ("name", "answers", "template", "rows"):
        table.add_column(column, overflow="fold")
    for task in TASKS.values():
        table.add_row(task.name, task.choices, _templates(task), _rows(task))
    console = terminal()
    console.print(table)
    for group, names in GROUPS.items():
        console.print(f"[bold]{group}[/]: {', '.join(names)}", highlight=False)
    console.print("A task of your own is a YAML file: --task mytask.yaml (see README).", highlight=False)


def print_models() -> None:
    """The table of supported architectures, the built-in models, and what is refused with the reason."""
    table = Table(title="Architectures that can be probed, each tested", title_justify="left")
    for column in ("model_type", "family", "key/value projections", "positions", "particular to it"):
        table.add_column(column, overflow="fold")
    for row in ARCHITECTURES.values():
        # A fused projection has one name for query, key and value.
        fused = f"rows of {row.projections[1]}" if row.fused else ", ".join(row.projections[1:])
        remark = ", ".join(filter(None, (row.remark, "through an adapter" if row.adapter else "")))
        table.add_row(row.model_type, row.title, fused, "absolute" if row.absolute_positions else "relative", remark)
    console = terminal()
    console.print(table)
    console.print(f"[bold]Built in[/] (--model NAME): {', '.join(BUILTIN)}", highlight=False)
    console.print(_packaged())
    console.print("[bold]Refused[/]", highlight=False)
    reasons: dict[str, list[str]] = {}
    for model_type, reason in REFUSED.items():
        reasons.setdefault(reason, []).append(model_type)
    for reason, model_types in reasons.items():
        console.print(f"{', '.join(model_types)}: {reason}", highlight=False)


def _packaged() -> Table:
    """Pretrained models that other packages carry."""
    table = Table(title="Pretrained, from the package index (--model NAME)", title_justify="left")
    for column in ("name", "model", "licence", "size", "here"):
        table.add_column(column, overflow="fold")
    for name, model in PACKAGED.items():
        here = "installed" if installed_pieces(name) else model.install
        table.add_row(name, model.title, model.licence, f"{model.size / 1e6:.0f} MB", escape(here))
    return table


def _templates(task: Task) -> str:
    # Most tasks have the same text under both of the paper's names.
    different = dict.fromkeys(task.templates.values())
    if len(different) == 1:
        return next(iter(different))
    return "\n".join(f"[{name}] {template}" for name, template in task.templates.items()).replace("[", "\\[")


def _rows(task: Task) -> str:
    if isinstance(task.source, HubSource):
        return "/".join(filter(None, (task.source.path, task.source.config, task.source.query_split)))
    return task.reference
