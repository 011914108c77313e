"""A run's files: `results.json`, `predictions.jsonl`, `kv_overlay.safetensors` and `config.yaml`, written all or none.

Everything is written into a hidden folder beside the final one, which is renamed when it is complete, so that an
interrupted run never looks finished. Tables and plots are made from these files alone.
"""

import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_icl.errors import OutputError

SCHEMA = 1
RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"
OVERLAY = "kv_overlay.safetensors"
CONFIG = "config.yaml"


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """One task of a run, read from its files."""

    folder: Path
    """Where it is."""
    results: Mapping[str, Any]
    """Content of `results.json`."""

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.results["task"]["name"])


def check_output(out: Path, tasks: Iterable[str], marker: str, overwrite: bool) -> None:
    """Make sure that results can be written, before hours are spent on them.

    Args:
        out: the run's folder.
        tasks: names of the tasks to be written into it.
        marker: the file that a finished task folder holds.
        overwrite: whether finished tasks may be replaced.

    Raises:
        OutputError: the folder holds a run, or something else where a task would go, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"--out {str(out)!r} is a file. Give a folder.")
    finished = sorted(path.parent.name for path in out.glob(f"*/{marker}"))
    if finished and not overwrite:
        raise OutputError(
            f"{str(out)!r} already holds a run ({', '.join(finished)}). Give another --out, or pass --overwrite to "
            "replace the tasks that are run again."
        )
    for task in tasks:
        if (out / task).exists() and not (out / task / marker).is_file():
            raise OutputError(f"{str(out / task)!r} exists and is no run, so it is left alone. Give another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OutputError(f"{str(out)!r} cannot be written: {error.strerror or error}. Give another --out.") from error


@contextmanager
def finished_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to write into, which becomes `folder` when the block ends without an error.

    What stood there before is removed only once its replacement is in place.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        try:
            yield part
            old = part.with_suffix(".old")
            part.chmod(0o755)
            if folder.exists():
                os.replace(folder, old)
            os.replace(part, folder)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise OutputError(
                f"{str(folder)!r} cannot be written: {error.strerror or error}. Nothing unfinished was left there."
            ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """A whole file at once: under a temporary name beside it, then renamed.

    Raises:
        OutputError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")  # processes may write the same file
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error


def to_json(content: Mapping[str, Any]) -> str:
    """JSON text with NaN and infinities as null, which is all that JSON knows."""
    return json.dumps(_finite(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def to_json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """JSON Lines, one compact object a line."""
    return "".join(json.dumps(_finite(row), separators=(", ", ": "), allow_nan=False) + "\n" for row in rows)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_run(folder: Path) -> list[TaskRun]:
    """The finished tasks of a run folder, or the one task of a task folder, in the order they were run.

    Raises:
        OutputError: there is none, or its results cannot be read.
    """
    paths = [folder / RESULTS] if (folder / RESULTS).is_file() else sorted(folder.glob(f"*/{RESULTS}"))
    if not paths:
        raise OutputError(f"{str(folder)!r} holds no finished run: there is no {RESULTS} in it or in its folders.")
    runs = [TaskRun(folder=path.parent, results=_read_results(path)) for path in paths]
    return sorted(runs, key=lambda run: (run.results.get("task_number", 0), run.task))


def _read_results(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise OutputError(f"{str(path)!r} has schema {found}; this version of lightning-icl reads schema {SCHEMA}.")
    return content
