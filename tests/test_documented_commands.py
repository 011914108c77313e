"""Every command that the documents print is one that the program takes: flags, values, configuration files."""

import re
import shlex
from pathlib import Path

import pytest

from lightning_icl.cli import COMMANDS, command_parser
from lightning_icl.flags import read_settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "experiments").rglob("*.md"),
    *(ROOT / "checkpoints").rglob("*.md"),
    *(ROOT / "benchmarks").rglob("*.md"),
]


def documented() -> list[str]:
    """Command lines in code blocks and between backquotes, each once; those with an ellipsis are no whole command."""
    lines = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        inline = re.findall(r"`(lightning-icl [a-z-]+ [^`\n]*)`", text)
        blocks = re.findall(r"(?:^|[;|] ?|do )(?: {4})?\$? ?(lightning-icl [a-z-]+[^;\n`|]*)", text, flags=re.MULTILINE)
        lines |= {re.split(r"\s+#", line)[0].strip() for line in (*inline, *blocks)}
    return sorted(line for line in lines if "…" not in line and line.split()[1] in COMMANDS)


def test_documents_print_commands() -> None:
    assert len(documented()) > 30


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_is_taken(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    written = line.replace(" ...", "").replace("$seed", "1").replace("$SLURM_ARRAY_TASK_ID", "1")
    name, *words = shlex.split(written)[1:]
    given, unknown = command_parser(name).parse_known_args(words)
    assert unknown == []
    settings = COMMANDS[name].settings
    if settings is not None and words:
        if hasattr(given, "overlay"):  # the folder of a reader's own run
            del given.overlay
        read_settings(settings, given)
