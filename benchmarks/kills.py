"""Kills and full disks at random places of every command: afterwards the same command gives the same files.

    python -m benchmarks.kills --count 200 --seed 1

Each trial lets a command run in a process of its own and ends it: at the n-th operation on the file system (before it
is carried out; the file written last is cut in half in some), by SIGKILL at a random moment, or by a disk that is full
from the n-th operation on. Then it looks at what is there, runs the same command again, and compares every file with
those of a run that nothing disturbed. Files of others around and inside the outputs must stay as they are, to the bit.
"""

import argparse
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_icl.saving.record import RECORD, strangers

SMALL = "--shots 2 --limit 3 --out out"
TWO = f"--task tiny-cb,tiny-mr {SMALL}"
TRAIN = (
    "pretrain --text book.txt --validation-text book.txt --text-share 0.5 --layers 1 --width 8 --heads 2 "
    "--vocabulary 300 --block 64 --short-block 64 --context 64 --batch 2 --steps 6 --warmup 1 "
    "--checkpoint-every 2 --validate-every 3 --accelerator cpu --out model"
)
SWEEP = "sweep --task tiny-cb --shots 2 --limit 3 --heldout 4 --seeds 1,2 --lrs 0.1,0.5 --overlay-memory 1e-6 --out out"
COMMANDS: dict[str, tuple[str, ...]] = {
    "compare": (f"compare {TWO}",),
    "compare --overwrite": (f"compare {TWO} --seed 2", f"compare {TWO} --overwrite"),
    "fit": (f"fit {TWO}",),
    "sweep": (SWEEP,),
    "sweep --overwrite": (SWEEP, f"{SWEEP} --overwrite --select paper"),
    "pretrain": (TRAIN,),
    "pretrain --overwrite": (f"{TRAIN} --seed 2", f"{TRAIN} --overwrite"),
    "report": (f"compare {TWO}", "report out --export --html page.html"),
    "weight-update": (f"weight-update {TWO} --held-out 2",),
    "dual-form": (f"dual-form {TWO}",),
}
"""Commands that prepare, and last the one that is disturbed."""
THEIRS = {
    "book.txt": " ".join(f"the number {number} follows {number - 1}." for number in range(200)),
    "notes.txt": "mine", ".private/notes.txt": "mine", "model.part/notes.txt": "mine", "out/notes.txt": "mine",
    "out/.own.x7.part/results.json": '{"schema": 1', "out/deep/er/thesis.tex": "mine", ".lightning-icl/x": "mine",
}  # fmt: skip
_WRITES = {"os.mkdir", "os.rename", "open", "fsync"}
_ALL = {*_WRITES, "os.remove", "os.rmdir"}


@dataclass(frozen=True)
class Disturbance:
    """What befalls a command."""

    kind: str
    """`kill` at an operation, `torn` likewise with the last file cut, `moment`, or `full`."""
    place: float
    """Number of the operation, or seconds."""


def run_apart(words: Sequence[str], here: Path, disturbance: Disturbance | None = None) -> tuple[int, str, int]:
    """Run a command in a process of its own; its status, what it said, and how many operations it did."""
    said = here.parent / "said.txt"
    said.write_text("")
    child = os.fork()
    if child == 0:
        _be_disturbed(words, here, said, disturbance)
    if disturbance is not None and disturbance.kind == "moment":
        time.sleep(disturbance.place)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    counted = here.parent / "operations"
    operations = int(counted.read_text()) if counted.exists() else 0
    counted.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status), said.read_text(errors="replace"), operations


def _be_disturbed(words: Sequence[str], here: Path, said: Path, disturbance: Disturbance | None) -> None:
    """The child: never returns."""
    from lightning_icl.cli import main

    os.chdir(here)
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    operations = _watch(here, disturbance)
    status = 1
    try:
        main(list(words))
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    (here.parent / "operations").write_text(str(operations[0]))
    os._exit(status)


def _watch(here: Path, disturbance: Disturbance | None) -> list[int]:
    """Count the operations of this process in a folder, and disturb it when it is time."""
    count, last, sync = [0], [""], os.fsync
    kind, place = ("", 0) if disturbance is None else (disturbance.kind, int(disturbance.place))

    def operation(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _ALL or not _concerns(event, arguments, here):
            return
        count[0] += 1
        if kind in ("kill", "torn") and count[0] == place:
            if kind == "torn" and last[0] and os.path.exists(last[0]):
                os.truncate(last[0], os.path.getsize(last[0]) // 2)
            os._exit(137)
        if kind == "full" and count[0] >= place and event in _WRITES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if event == "open":
            last[0] = str(arguments[0])

    def counted_sync(handle: int) -> None:
        operation("fsync", (str(here),))
        sync(handle)

    os.fsync = counted_sync  # type: ignore[assignment]
    sys.addaudithook(operation)
    return count


def _concerns(event: str, arguments: tuple[Any, ...], here: Path) -> bool:
    path = arguments[0]
    if not isinstance(path, str | os.PathLike | bytes):
        return False
    if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        return False
    absolute = os.path.abspath(os.fsdecode(path))
    return absolute.startswith(str(here)) and os.path.basename(absolute) != "lock"


def files_of(here: Path) -> dict[str, str]:
    """Every file by path: figures by their hash, pictures and records by their being there."""
    return {
        path.relative_to(here).as_posix(): _content(path)
        for path in sorted(here.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def _content(path: Path) -> str:
    if path.name == RECORD or path.suffix in (".png", ".svg", ".parquet", ".html"):
        return ""
    text = path.read_bytes()
    if path.name in ("results.json", "dual_form.json", "run.json"):
        try:
            content = json.loads(text)
        except ValueError:  # not ours
            return hashlib.sha256(text).hexdigest()
        text = json.dumps({key: value for key, value in content.items() if key not in _VARIES}).encode()
    if path.suffix == ".safetensors":  # its library writes the header in any order
        size = 8 + int.from_bytes(text[:8], "little")
        text = json.dumps(json.loads(text[8:size]), sort_keys=True).encode() + text[size:]
    return hashlib.sha256(text).hexdigest()


_VARIES = ("timing", "versions", "date", "made", "machine", "hardware", "environment")


def faults(here: Path, expected: dict[str, str] | None) -> list[str]:
    """What is wrong with a folder: half outputs, changed files of others; with `expected` whatever differs from it."""
    found = [f"{name} of others changed" for name, text in THEIRS.items() if (here / name).read_text() != text]
    whole = ("results.json", "finetune.json", "run.json", "dual_form.json", "model.safetensors")
    for path in here.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(here).parts)
        if path.name in whole and not hidden and (others := strangers(path.parent)):
            found.append(f"{path.parent} looks finished, but is not whole: {others[0].name}")
    if expected is not None and not found:
        now = files_of(here)
        found += [f"{name} is left" for name in now.keys() - expected.keys()]
        found += [f"{name} is missing" for name in expected.keys() - now.keys()]
        found += [f"{name} differs" for name in now.keys() & expected.keys() if now[name] != expected[name]]
    return found


@dataclass
class Rehearsal:
    """A command as it is without disturbance."""

    before: Path
    """What is there when it begins."""
    expected: dict[str, str]
    operations: int
    seconds: float


def rehearse(commands: Sequence[str], folder: Path) -> Rehearsal:
    """Run what prepares, keep that, then run the command itself."""
    here = folder / "here"
    for name, text in THEIRS.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    for command in commands[:-1]:
        status, said, _ = run_apart(command.split(), here)
        assert status == 0, said
    shutil.copytree(here, folder / "before")
    begun = time.perf_counter()
    status, said, operations = run_apart(commands[-1].split(), here)
    assert status == 0, said
    assert not faults(here, None), faults(here, None)
    return Rehearsal(folder / "before", files_of(here), operations, time.perf_counter() - begun)


def trial(command: str, rehearsal: Rehearsal, draw: random.Random, folder: Path) -> tuple[str, list[str]]:
    """Disturb a command once, in three of ten cases twice, and run it to its end; what was done, and what was wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    here = folder / "here"
    shutil.copytree(rehearsal.before, here)
    done, words = [], command.split()
    for _ in range(2 if draw.random() < 0.3 else 1):
        kind = draw.choice(["kill", "kill", "torn", "moment", "full"])
        place = draw.uniform(0, rehearsal.seconds) if kind == "moment" else draw.randint(1, rehearsal.operations)
        status, said, _ = run_apart(words, here, Disturbance(kind, place))
        done.append(f"{kind} {place:.3g}")
        found = faults(here, None)
        if kind == "full":
            found += _faults_of_a_full_disk(here, rehearsal, status, said)
        if found:
            return ", ".join(done), found
    status, said, _ = run_apart(words, here)
    found = faults(here, rehearsal.expected)
    if status != 0 and not (status == 2 and "already holds a" in said):  # all was finished when the kill came
        found.append(f"the same command ended with {status}: {said[-600:]}")
    return ", ".join(done), found


def _faults_of_a_full_disk(here: Path, rehearsal: Rehearsal, status: int, said: str) -> list[str]:
    found = []
    said_so = "No space left" in said or "already holds a" in said  # the latter where all was finished before
    if status not in (0, 2) or "Traceback" in said or (status == 2 and not said_so):
        found.append(f"a full disk ended with {status}: {said[-600:]}")
    kept = set(rehearsal.before.rglob(".*"))
    hidden = [path for path in here.rglob(".*") if rehearsal.before / path.relative_to(here) not in kept]
    return found + [f"a full disk left {path.name}" for path in hidden if path.parent.name != "model.training"]


def main() -> None:
    """Run the trials and print what was wrong; status 1 where anything was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="number of trials (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="of their places (default 1)")
    parser.add_argument("--commands", nargs="*", choices=list(COMMANDS), default=list(COMMANDS))
    arguments = parser.parse_args()
    _import_everything()
    draw, wrong, kinds = random.Random(arguments.seed), 0, Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        rehearsals: dict[str, Rehearsal] = {}
        for number in range(arguments.count):
            name = arguments.commands[number % len(arguments.commands)]
            commands = COMMANDS[name]
            if name not in rehearsals:
                (Path(place) / str(number)).mkdir()
                rehearsals[name] = rehearse(commands, Path(place) / str(number))
                print(f"{name}: {rehearsals[name].operations} operations", flush=True)
            if number % 20 == 0:
                print(f"{number} trials done", flush=True)
            done, found = trial(commands[-1], rehearsals[name], draw, Path(place) / "trial")
            kinds.update(part.split()[0] for part in done.split(", "))
            if found:
                wrong += 1
                print(f"{name}, {done}: {'; '.join(found[:3])}", flush=True)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{arguments.count} trials ({told}): {wrong} with something wrong")
    sys.exit(int(wrong > 0))


def _import_everything() -> None:
    """Once, before processes divide; nothing is computed here, so that no threads are lost."""
    import torch

    import lightning_icl.comparison.commands
    import lightning_icl.dualform.commands
    import lightning_icl.pretraining.checkpoint
    import lightning_icl.pretraining.data
    import lightning_icl.pretraining.models
    import lightning_icl.pretraining.run
    import lightning_icl.sweeping.commands  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
