"""The house rules that a machine can check: imports point downward, files stay small, names are exported lazily."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_icl

PACKAGE = Path(lightning_icl.__file__).parent
RANKS = {
    "errors": -1, "records": 0, "published": 0, "process_setup": 0, "process_watch": 1, "file_names": 0, "_version": 0,
    "bfloat16_support": 0, "interrupts": 0, "measures": 0, "console": 0, "saved_json": 0,
    "plain_yaml": 0, "setting_values": 0, "setting_ranges": 0, "lightning_parts": 0, "flags": 1,
    "tasks": 1, "attention": 1, "results": 1, "saving": 1,
    "data": 2, "models": 2, "metrics": 2,
    "probing": 3, "pretraining": 3,
    "report": 2, "comparison": 4, "listing": 4,
    "dualform": 5, "sweeping": 5,
    "weightupdate": 6,
    "front": 7, "cli": 7, "__main__": 8,
}  # fmt: skip
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("lightning_icl.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    own = room(path)
    for other in imported_rooms(path) - {own}:
        assert RANKS[other] < RANKS[own], f"{own} (rank {RANKS[own]}) imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "no module docstring"


def test_a_file_starts_with_an_underscore_where_only_its_own_room_reads_it() -> None:
    """Readers are the rest of the package, the benchmarks, the experiments and the documentation."""
    root = PACKAGE.parent
    files = [path for folder in (PACKAGE, root / "benchmarks", root / "experiments") for path in folder.rglob("*.py")]
    readers: dict[str, set[Path]] = {}
    for path in [*files, PACKAGE / "__init__.pyi", *(root / "docs").rglob("*.md")]:
        text = re.sub(r"from (lightning_icl[\w.]*) import (\w+)", r"\1.\2", path.read_text())
        for name in set(re.findall(r"lightning_icl(?:\.\w+)+", text)):
            readers.setdefault(name, set()).add(path.parent)
            readers.setdefault(name.rpartition(".")[0], set()).add(path.parent)
    for path in MODULES:
        if path.parent != PACKAGE and path.name != "__init__.py":
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            others = readers.get(module, set()) - {path.parent}
            assert bool(others) != path.name.startswith("_"), f"{module} is read by {others or 'its own room alone'}"


def test_what_is_particular_to_an_architecture_stands_in_its_table() -> None:
    for path in MODULES:
        if path != PACKAGE / "models" / "architecture.py":
            asked = re.findall(r"model_type *(?:==|!=|in\b|not in\b).*", path.read_text())
            assert not asked, f"{path.relative_to(PACKAGE)}: make a field of Architecture of this: {asked}"


def test_every_exported_name_exists_where_it_is_said_to_be() -> None:
    for name, home in lightning_icl._HOME.items():
        assert getattr(lightning_icl, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = lightning_icl.nothing


LIGHT = (
    *("--help", "compare --help", "--version", "tasks", "models", "report no/such/run"),
    *(
        "compare --model bultin",
        "sweep --model ./no/such/folder",
        "dual-form --task sst-2",
        "weight-update --model bultin",
        "fit --data no/such/folder",
    ),
)


@pytest.mark.parametrize("arguments", [words.split() for words in LIGHT], ids=LIGHT)
def test_help_and_misspelt_names_load_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom lightning_icl.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'lightning', 'datasets'} & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert run.stderr.strip().splitlines()[-1] == "[]"


def test_the_written_package_list_is_complete() -> None:
    import configparser

    setup = configparser.ConfigParser()
    if not setup.read(PACKAGE.parent / "setup.cfg"):
        pytest.skip("not run from a checkout")
    listed = set(setup["options"]["packages"].split())
    present = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}
    assert present <= listed
    assert {name for name in listed if "checkpoints" not in name} == present


def test_no_protocol_with_attributes_is_asked_by_isinstance() -> None:
    # From Python 3.12 on, `isinstance` looks such attributes up without `__getattr__`, where modules keep submodules.
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and "runtime_checkable" in map(ast.unparse, node.decorator_list):
                assert not any(isinstance(part, ast.AnnAssign) for part in node.body), f"{path}: {node.name}"
