"""Rows of a user's files, JSON Lines, CSV or Parquet, with the place of every row for error messages."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from lightning_icl.errors import TaskError

SUFFIXES = (".jsonl", ".csv", ".parquet")


def split_file(data: Path, task: str, split: str) -> Path:
    """The file of a split in a data folder.

    Raises:
        TaskError: there is none.
    """
    folder = data.expanduser() / task
    if not data.expanduser().is_dir():
        raise TaskError(f"--data {str(data)!r} is no folder.")
    found = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
    if len(found) > 1:
        raise TaskError(f"{found[0]} and {found[1]} both hold the {split} rows of task {task!r}. Keep one of them.")
    if not found:
        names = ", ".join(f"{split}{suffix}" for suffix in SUFFIXES)
        raise TaskError(f"There are no {split} rows of task {task!r} in {str(folder)!r}: none of {names} exists.")
    return found[0]


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Rows of a file, each with its place.

    Raises:
        TaskError: the file cannot be read, with the line where it is malformed.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise TaskError(f"{path}: rows are read from {', '.join(SUFFIXES)}, not from {path.suffix or 'such a file'!r}.")
    try:
        yield from readers[path.suffix](path)
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}") from error


def _read_jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise TaskError(
                    f"{path}, line {number}: malformed JSON ({error.msg} at column {error.colno})."
                ) from error
            if not isinstance(row, dict):
                raise TaskError(f"{path}, line {number}: a row must be a JSON object, not {type(row).__name__}.")
            yield f"{path}, line {number}", row


def _read_csv(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                return
            for cells in reader:
                place = f"{path}, line {reader.line_num}"
                if len(cells) != len(header):
                    raise TaskError(f"{place}: {len(cells)} cells under {len(header)} column names.")
                yield place, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise TaskError(f"{path}, line {reader.line_num}: malformed CSV ({error}).") from error


def _read_parquet(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise TaskError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from error
    for number, row in enumerate(table.to_pylist()):
        yield f"{path}, row {number}", row
