"""The quick start, typed as `docs/index.md` prints it, in an environment that has the built wheel and no clone."""

import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from pathlib import Path

from documented import ROOT
from packaging.requirements import Requirement

SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "lightning_icl", "checkpoints")
FEWER = "--task tiny-sst2 --limit 8 --shots 8"
"""What is added to the documented comparison: one of six tasks, and few queries and demonstrations."""


def build_wheel(folder: Path) -> Path:
    """A wheel of the working tree, built from a copy, so that nothing is left in the tree."""
    source = folder / "source"
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(path, source)
    typed(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source), at=folder)
    return next(folder.glob("*.whl"))


def install(wheel: Path, folder: Path) -> Path:
    """The programs of an environment with this wheel; its dependencies, and no others, are the tests' environment's."""
    typed(sys.executable, "-m", "venv", "--without-pip", str(folder), at=wheel.parent)
    python = folder / "bin" / "python"
    own = Path(typed(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", at=folder).strip())
    for dependency in installed_with(declared(wheel, "plot")):
        # Nothing else of the tests' environment: what the wheel does not declare must be missing here.
        for top in {path.parts[0] for path in dependency.files or () if path.parts[0] not in ("..", "__pycache__")}:
            if not (own / top).exists():
                (own / top).symlink_to(Path(str(dependency.locate_file(top))))
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index")
    typed(*pip, str(wheel), at=wheel.parent)
    return folder / "bin"


def declared(wheel: Path, extra: str) -> list[Requirement]:
    """What a wheel says that it needs with an extra."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
    return [one for one in map(Requirement, lines) if is_asked(one, {extra})]


def is_asked(requirement: Requirement, extras: set[str]) -> bool:
    """Whether it is needed here, with these extras of who needs it."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def installed_with(requirements: list[Requirement]) -> list[Distribution]:
    """All that an installation of these brings, as the tests' environment has it."""
    reached: dict[str, Distribution] = {}
    waiting = list(requirements)
    while waiting:
        one = waiting.pop()
        own = reached.setdefault(one.name.lower(), distribution(one.name))
        others = [other for other in map(Requirement, own.requires or ()) if is_asked(other, one.extras)]
        waiting += [other for other in others if other.name.lower() not in reached]
    return list(reached.values())


def typed(*words: str, at: Path) -> str:
    done = subprocess.run(words, cwd=at, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_the_tree() -> set[str]:
    """Files that the package consists of, by their names in a wheel."""
    code = {path.relative_to(ROOT) for path in (ROOT / "lightning_icl").rglob("*")}
    models = {path.relative_to(ROOT / "checkpoints") for path in (ROOT / "checkpoints").glob("*/*")}
    names = {path.as_posix() for path in code | {Path("lightning_icl/checkpoints") / path for path in models}}
    return {name for name in names if "." in Path(name).name and "__pycache__" not in name}


def test_the_quick_start_runs_from_the_wheel(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == in_the_tree()
    programs, here = install(wheel, tmp_path / "environment"), tmp_path / "here"
    here.mkdir()
    place = typed(str(programs / "python"), "-c", "import lightning_icl; print(lightning_icl.__file__)", at=here)
    assert Path(place).is_relative_to(tmp_path / "environment")

    printed = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    compare, report = re.findall(r"^ {4}lightning-icl (.+)$", printed, flags=re.MULTILINE)
    table = typed(str(programs / "lightning-icl"), *compare.split(), *FEWER.split(), at=here)
    assert {"ZSL accuracy", "FT accuracy", "ICL accuracy", "Rec2FTP", "SimAOU", "SimAM", "Kendall"} <= set(names(table))
    (run,) = (here / "runs").iterdir()
    assert str(run.relative_to(here)) in table
    report = report.replace("runs/FOLDER", f"runs/{run.name}")
    typed(str(programs / "lightning-icl"), *report.split(), "--export", at=here)
    page = (here / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'<(?:script|link|img)[^>]* (?:src|href)="(?!data:)', page)
    assert {".md", ".csv", ".tex", ".png", ".svg"} <= {path.suffix for path in run.iterdir()}


def names(table: str) -> list[str]:
    """What the rows of a printed table are called."""
    return [line.split("│")[1].strip() for line in table.splitlines() if line.startswith("│")]
