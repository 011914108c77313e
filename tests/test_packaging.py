"""What an installation needs is declared, and what the documents point to exists."""

import ast
import configparser
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DISTRIBUTIONS = {"yaml": "pyyaml"}


def declared() -> set[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    for extra in config["options.extras_require"].values():
        lines += extra.split("\n")
    return {re.split(r"[\[<>=; ]", line.strip())[0].lower().replace("_", "-") for line in lines if line.strip()}


def imported() -> set[str]:
    names = set()
    for path in (ROOT / "lightning_icl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
    return names - set(sys.stdlib_module_names) - {"lightning_icl"}


def test_every_imported_package_is_declared() -> None:
    needed = {DISTRIBUTIONS.get(name, name).lower().replace("_", "-") for name in imported()}
    assert needed - declared() == set()


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_links_to_exists(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        linked = page if not name else (page.parent / name)
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), target


def test_links_are_absolute_on_an_index_page() -> None:
    spec = importlib.util.spec_from_file_location("absolute_links", ROOT / ".github" / "absolute_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.absolute_links((ROOT / "README.md").read_text(encoding="utf-8"), "https://host/o/n", "v1")
    assert re.findall(r"\]\((?!https?://|#)", text) == []
    shown = module.absolute_links("![p](docs/p.png) [a](b.md) [c](https://d) [e](#f)", "https://host/o/n", "v1")
    assert shown == (
        "![p](https://host/o/n/raw/v1/docs/p.png) [a](https://host/o/n/blob/v1/b.md) [c](https://d) [e](#f)"
    )
