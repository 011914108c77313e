"""Where outputs go: names that become folders, and folders and files that are somebody else's."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from outside_case import Case, check_case

from lightning_icl.cli import main
from lightning_icl.saving.paths import default_folder
from lightning_icl.saving.workspace import held

SMALL = "--task tiny-cb --shots 2 --limit 3"
SWEEP = f"sweep {SMALL} --seeds 1 --lrs 0.1 --heldout 4"
PRETRAIN = (
    "pretrain --layers 1 --width 8 --heads 2 --vocabulary 300 --block 64 --short-block 64 --context 64 --batch 2 "
    "--steps 2 --warmup 1 --accelerator cpu"
)
ROWS = "".join(json.dumps({"text": f"w{number}", "label": number % 2}) + "\n" for number in range(8))
HELD = ExitStack()


@cache
def finished(command: str) -> Path:
    """A folder with what a command makes, made once."""
    folder = Path(mkdtemp())
    main([*command.split(), "--out", str(folder / "out")])
    return folder / "out"


def after(command: str, *changes: Callable[[Path], object]) -> Callable[[Path], None]:
    """Prepare: a run that was made before, then changed."""

    def prepare(here: Path) -> None:
        shutil.copytree(finished(command), here / "out")
        for change in changes:
            change(here / "out")

    return prepare


def text(path: str, content: str = "years of work") -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)

    return write


def lent_away(folder: Path) -> None:
    (folder / "tiny-cb").rename(folder.parent / "elsewhere")
    (folder / "tiny-cb").symlink_to(folder.parent / "elsewhere")


def in_use(here: Path) -> None:
    HELD.enter_context(held(here / "out"))


def named(name: str, situation: str, *says: str) -> Case:
    """A task file with a name, and somebody's folder where a path in it would lead."""
    task = (
        f'name: {name}\ntemplate: "{{text}}:"\nanswers: [a, b]\nrows: {{train: rows.jsonl, validation: rows.jsonl}}\n'
    )
    return Case(
        situation=f"a task named {situation}",
        arguments="compare --task task.yaml --shots 2 --limit 3 --out out/deep --overwrite",
        files={"task.yaml": task, "rows.jsonl": ROWS, "victim/thesis.tex": "years of work", "out/other/x": "work"},
        says=["task.yaml", *says],
    )


NAMES = [
    named("../../victim", "by a path upward", "it holds '/'", "A name has at most 100"),
    named("'{here}/victim'", "by a path from the root", "it holds '/'"),
    named("''", "with nothing", "it is empty"),
    named("'  '", "with blanks", "it is empty"),
    named("null", "with null", "must be a text"),
    named("'.'", "as this folder", "begins with a dot"),
    named("'..'", "as the folder above", "begins with a dot"),
    named("./", "as this folder, with a slash", "it holds '/'"),
    named("org/mytask", "with an organisation", "it holds '/'"),
    named(".hidden", "as hidden files are", "begins with a dot"),
    named("n" * 101, "with 101 letters", "101 characters"),
    named("字" * 80, "with 240 bytes", "240 bytes"),
    named(r'"a\nb"', "with a line break", "cannot be printed"),
    named(r'"a\x07b"', "with a bell", "cannot be printed"),
    named(r'"a\0b"', "with NUL", "cannot be read"),
    named(r'"a\u202Eb"', "with letters turned round", "cannot be printed"),
    named("'c:evil'", "as a drive", "it holds ':'"),
    named("'a\\b'", "with a backslash", r"it holds '\\'"),
    named("'mine.'", "with a dot at its end", "ends with a dot"),
    named("config.yaml", "as the settings are", "a run has a file of that name"),
    named("lightning-icl.json", "as the record is", "a run has a file of that name"),
    named("[a, b]", "with a list", "must be a text"),
    named("true", "with a truth value", "must be a text"),
    Case(
        situation="a task file named by its file alone, which no folder can be",
        arguments="compare --task '.mine.yaml' --out out",
        files={".mine.yaml": 'template: "{text}:"\nanswers: [a, b]\n'},
        says=[".mine.yaml", "begins with a dot"],
    ),
]

OUT = [
    *(
        Case(
            situation=f"{name} into a file",
            arguments=f"{command} --out notes.txt",
            files={"notes.txt": "mine"},
            says=["'notes.txt' is a file"],
        )
        for name, command in (
            ("compare", f"compare {SMALL}"), ("fit", f"fit {SMALL}"), ("validate", f"validate {SMALL}"),
            ("dual-form", f"dual-form {SMALL}"), ("sweep", SWEEP), ("pretrain", PRETRAIN),
        )
    ),
    *(
        Case(situation=f"{name} into a folder without a name", arguments=f"{command} --out ''", says=["--out"])
        for name, command in (
            ("compare", f"compare {SMALL}"), ("dual-form", f"dual-form {SMALL}"), ("sweep", SWEEP),
            ("pretrain", PRETRAIN),
        )
    ),
    Case(situation="a folder of blanks", arguments=f"compare {SMALL} --out '  '", says=["--out"]),
    Case(
        situation="a folder in a file",
        arguments=f"compare {SMALL} --out notes.txt/deep",
        files={"notes.txt": "mine"},
        says=["'notes.txt/deep' cannot be written"],
    ),
    Case(situation="a name that no system takes", arguments=f"fit {SMALL} --out {'n' * 300}", says=["--out", "255"]),
    Case(situation="a path that no system takes", arguments=f"{SWEEP} --out {'n/' * 3000}", says=["--out", "3,500"]),
    Case(situation="a folder that cannot be printed", arguments=f"fit {SMALL} --out 'a\x07b'", says=["be printed"]),
    Case(situation="a folder of somebody unknown", arguments=f"compare {SMALL} --out '~nouser/x'", says=["--out"]),
    Case(situation="a folder of the system", arguments=f"compare {SMALL} --out /proc/x", says=["cannot be written"]),
    Case(
        situation="the folder of runs is a file",
        arguments=f"compare {SMALL}",
        files={"runs": "mine"},
        says=["'runs' is a file", "--out"],
    ),
    Case(situation="a folder in use", arguments=f"compare {SMALL} --out out", prepare=in_use, says=["'out' is in use"]),
]  # fmt: skip

THEIRS = [
    *(
        Case(
            situation=f"{command} over somebody's folder",
            arguments=f"{command} {SMALL} --out out --overwrite",
            files={"out/tiny-cb/notes.txt": "mine"},
            says=["tiny-cb/notes.txt' was not written by lightning-icl", "left alone"],
        )
        for command in ("compare", "fit", "validate", "dual-form")
    ),
    Case(
        situation="somebody's file in a finished task",
        arguments=f"compare {SMALL} --out out --overwrite",
        prepare=after(f"compare {SMALL}", text("tiny-cb/notes.txt")),
        says=["tiny-cb/notes.txt'", "left alone"],
    ),
    Case(
        situation="results changed by hand",
        arguments=f"compare {SMALL} --out out --overwrite",
        prepare=after(f"compare {SMALL}", text("tiny-cb/results.json", "{}")),
        says=["tiny-cb/results.json'", "changed since"],
    ),
    Case(
        situation="a task's folder that is a link",
        arguments=f"compare {SMALL} --out out --overwrite",
        prepare=after(f"compare {SMALL}", lent_away),
        says=["tiny-cb'", "left alone"],
    ),
    Case(
        situation="somebody's settings",
        arguments=f"compare {SMALL} --config out/config.yaml --out out",
        files={"out/config.yaml": "seed: 3\n"},
        says=["config.yaml' was not written by lightning-icl"],
    ),
    Case(
        situation="a finished run",
        arguments=f"compare {SMALL} --out out",
        prepare=after(f"compare {SMALL}"),
        says=["already holds a run (tiny-cb)", "--overwrite"],
    ),
    Case(
        situation="a finished run of other settings",
        arguments=f"compare {SMALL} --seed 2 --out out",
        prepare=after(f"compare {SMALL}"),
        says=["already holds a run (tiny-cb)"],
    ),
    Case(
        situation="a fine-tuning where a comparison goes",
        arguments=f"compare {SMALL} --out out",
        prepare=after(f"fit {SMALL}"),
        says=["tiny-cb' was made before", "--overwrite"],
    ),
    *(
        Case(
            situation=f"a sweep over somebody's {name}",
            arguments=f"{SWEEP} --out out",
            files={f"out/{name}": "mine"},
            says=[f"{name}' was not written by lightning-icl"],
        )
        for name in ("sweep.csv", "summary.csv", "sweep.parquet")
    ),
    Case(
        situation="somebody's file in a run of a sweep",
        arguments=f"{SWEEP} --out out --overwrite",
        prepare=after(SWEEP, text("builtin/tiny-cb/shots-2/seed-1/lr-0.1/notes.txt")),
        says=["lr-0.1/notes.txt'", "left alone"],
    ),
    Case(
        situation="a sweep's table changed by hand",
        arguments=f"{SWEEP} --out out",
        prepare=after(SWEEP, text("sweep.csv", "model,remarks\n")),
        says=["sweep.csv'", "changed since"],
    ),
    Case(
        situation="training over somebody's folder",
        arguments=f"{PRETRAIN} --out model --overwrite",
        files={"model/config.json": "mine"},
        says=["model/config.json'", "left alone"],
    ),
    Case(
        situation="training over somebody's model",
        arguments=f"{PRETRAIN} --out model",
        files={"model/model.safetensors": "mine"},
        says=["'model' already holds a model"],
    ),
    Case(
        situation="somebody's folder where a training would be kept",
        arguments=f"{PRETRAIN} --out model",
        files={"model.training/last.ckpt": "mine"},
        says=["'model.training'", "left alone"],
    ),
    Case(
        situation="somebody's file where a training would be kept",
        arguments=f"{PRETRAIN} --out model",
        files={"model.training": "mine"},
        says=["'model.training'", "left alone"],
    ),
    Case(
        situation="training into the current folder",
        arguments=f"{PRETRAIN} --out .",
        files={"notes.txt": "mine"},
        says=["needs a folder of its own"],
    ),
    Case(
        situation="somebody's folder with a name of ours",
        arguments=f"{PRETRAIN} --out model",
        files={"model.part/notes.txt": "mine", ".model.part/notes.txt": "mine"},
        loads_weights=True,
        status=0,
        makes=["model/model.safetensors", "model/training_log.csv", "model/training.json"],
    ),
]

EXPORTS = [
    Case(
        situation="tables over somebody's own",
        arguments="report out --export",
        prepare=after(f"compare {SMALL}", text("summary.md")),
        says=["out/summary.md' was not written by lightning-icl", "Nothing was written"],
    ),
    Case(
        situation="pictures over somebody's own",
        arguments="report out --export",
        prepare=after(f"compare {SMALL}", text("kendall.svg")),
        says=["out/kendall.svg'", "Nothing was written"],
    ),
    Case(
        situation="exported tables changed by hand",
        arguments="report out --export",
        prepare=after(f"compare {SMALL}", lambda out: main(["report", str(out), "--export"]), text("summary.csv")),
        says=["out/summary.csv'", "changed since"],
    ),
    Case(
        situation="a page over somebody's own",
        arguments="report out --html notes.html",
        files={"notes.html": "<p>mine</p>"},
        prepare=after(f"compare {SMALL}"),
        says=["'notes.html' exists and is no report"],
    ),
    Case(
        situation="a page where a folder is",
        arguments="report out --html out",
        prepare=after(f"compare {SMALL}"),
        says=["'out'"],
    ),
    Case(
        situation="a page without a name",
        arguments="report out --html ''",
        prepare=after(f"compare {SMALL}"),
        says=["--html"],
    ),
    Case(
        situation="a page in a file",
        arguments="report out --html notes.txt/page.html",
        files={"notes.txt": "mine"},
        prepare=after(f"compare {SMALL}"),
        says=["notes.txt"],
    ),
    Case(
        situation="half-written results of a killed run",
        arguments="report out",
        files={"out/.tiny-cb.ab.part/results.json": "{", "out/.lightning-icl-run.part/new/a/results.json": "{"},
        says=["holds no finished run"],
    ),
    Case(
        situation="somebody's hidden folder beside results",
        arguments=f"compare {SMALL} --out out",
        files={"out/.tiny-cb.ab12.part/results.json": '{"schema": 1'},
        loads_weights=True,
        status=0,
        makes=["out/tiny-cb/results.json", "out/config.yaml"],
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    yield
    HELD.close()


@pytest.mark.parametrize("case", [*NAMES, *OUT, *THEIRS, *EXPORTS], ids=lambda case: case.situation)
def test_folders(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)


def test_runs_that_begin_in_one_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [default_folder("org/some model") for _ in range(20)]
    assert len(set(folders)) == 20
    assert all(folder.parent == Path("runs") and folder.name.startswith("some-model-") for folder in folders)
