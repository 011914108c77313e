"""What the documents print for readers to type: command lines, programs, task files."""

import re
from pathlib import Path

from lightning_icl.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "experiments").rglob("*.md"),
    *(ROOT / "checkpoints").rglob("*.md"),
    *(ROOT / "benchmarks").rglob("*.md"),
]


def command_lines() -> list[str]:
    """Command lines in code blocks and between backquotes, each once; those with an ellipsis are no whole command."""
    lines = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        inline = re.findall(r"`(lightning-icl [a-z-]+ [^`\n]*)`", text)
        blocks = re.findall(r"(?:^|[;|] ?|do )(?: {4})?\$? ?(lightning-icl [a-z-]+[^;\n`|]*)", text, flags=re.MULTILINE)
        lines |= {re.split(r"\s+#", line)[0].strip() for line in (*inline, *blocks)}
    return sorted(line for line in lines if "…" not in line and line.split()[1] in COMMANDS)


def blocks(language: str) -> dict[str, str]:
    """Code blocks of a language, by page and number."""
    return {
        f"{page.relative_to(ROOT).as_posix()} {number}": block
        for page in PAGES
        for number, block in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        )
    }


def everything() -> str:
    """All pages as one text."""
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
