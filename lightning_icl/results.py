"""A run's files: `results.json`, `predictions.jsonl`, `kv_overlay.safetensors` and `config.yaml`.

Tables and plots are made from these files alone; `saving` says how they reach the disk.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_icl.errors import OutputError
from lightning_icl.measures import compared_levels
from lightning_icl.saved_json import read_json

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


def finished_parts(folder: Path, marker: str) -> list[Path]:
    """The file that marks a finished part of a run, in each folder that has one; unfinished ones are hidden.

    Args:
        folder: of the run.
        marker: name of the file.
    """
    return sorted(path for path in folder.glob(f"*/{marker}") if not path.parent.name.startswith("."))


def read_run(folder: Path) -> list[TaskRun]:
    """The finished tasks of a run folder, or the one task of a task folder, in the order they were run.

    Raises:
        OutputError: there is none, or its results cannot be read.
    """
    paths = [folder / RESULTS] if (folder / RESULTS).is_file() else finished_parts(folder, RESULTS)
    if not paths:
        raise OutputError(f"{str(folder)!r} holds no finished run: there is no {RESULTS} in it or in its folders.")
    runs = [TaskRun(folder=path.parent, results=_read_results(path)) for path in paths]
    # Files of an earlier version have no number; by name they still have an order.
    return sorted(runs, key=lambda run: (run.results.get("task_number", 0), run.task))


def _read_results(path: Path) -> Mapping[str, Any]:
    content = read_json(path, "results")
    parts = [content, *(content.get("controls") or {}).values()]
    curves = [
        values
        for part in parts
        for level in compared_levels()
        for name, values in (part.get(level) or {}).items()
        if values and name.endswith(("per_layer", "per_head", "example_icl", "example_ft"))
    ]
    # A schema cannot say that all curves are of the same length.
    layers = {len(values) for values in curves}
    ragged = any(len({len(row) for row in rows}) > 1 for rows in curves if isinstance(rows[0], list))
    if len(layers) > 1 or ragged:
        raise OutputError(
            f"{str(path)!r} has values of {' and '.join(map(str, sorted(layers)))} layers, or rows of different "
            "lengths. The file is damaged or was edited: make it again, or take it away."
        )
    return content
