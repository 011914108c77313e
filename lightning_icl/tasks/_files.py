"""Rows of a user's files, JSON Lines, CSV or Parquet, with the place of every row for error messages."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_icl.errors import TaskError, shown

SUFFIXES = (".jsonl", ".csv", ".parquet")
_MOST_DIGITS = 1000


def split_file(data: Path, task: str, split: str) -> Path:
    """The file of a split in a data folder.

    Raises:
        TaskError: there is none.
    """
    try:
        root = data.expanduser()
        folder, is_folder = root / task, root.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, or `~` of an unknown user
        raise TaskError(f"--data {shown(str(data))} is no folder: {shown(str(error), quoted=False)}.") from error
    if not is_folder:
        raise TaskError(
            f"--data {shown(str(data))} is no folder. Give one with {task}/{split}.jsonl, .csv or .parquet."
        )
    # All endings are looked for, so that two files of one split are noticed.
    paths = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
    if len(paths) > 1:
        raise TaskError(f"{paths[0]} and {paths[1]} both hold the {split} rows of task {task!r}. Keep one of them.")
    if not paths:
        names = ", ".join(f"{split}{suffix}" for suffix in SUFFIXES)
        raise TaskError(f"There are no {split} rows of task {task!r} in {str(folder)!r}: none of {names} exists.")
    return paths[0]


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Rows of a file, each with its place.

    Raises:
        TaskError: the file cannot be read, with the line where it is malformed.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    name = shown(str(path), most=200, quoted=False)
    if path.suffix not in readers:
        ending = f"{path.suffix!r}" if path.suffix else "a name without one of these endings"
        raise TaskError(f"{name}: rows are read from {', '.join(SUFFIXES)}, not from {ending}.")
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for for ever
            raise TaskError(f"{name} is no regular file, so rows cannot be read from it.")
        yield from readers[path.suffix](path)
    except UnicodeDecodeError as error:
        raise TaskError(f"{name} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or an error of our own
        # TaskError is a ValueError, with a message that should stay.
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"{name} cannot be read: {shown(str(error), most=200, quoted=False)}.") from error


def _read_jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    with path.open(encoding="utf-8-sig") as lines:  # with or without a byte order mark
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                # Both hooks catch what `json` would pass over: a field that occurs twice, and numbers with thousands of
                # digits.
                row = json.loads(line, object_pairs_hook=_once, parse_int=_whole_number)
            except json.JSONDecodeError as error:
                raise TaskError(f"{place}: malformed JSON ({error.msg} at column {error.colno}).") from error
            except RecursionError as error:
                raise TaskError(f"{place}: the JSON is nested too deeply.") from error
            except ValueError as error:  # a field twice, or a number too long
                raise TaskError(f"{place}: {shown(str(error), most=200, quoted=False)}.") from error
            if not isinstance(row, dict):
                raise TaskError(f"{place}: a row must be a JSON object, not {type(row).__name__}.")
            yield place, row


def _whole_number(digits: str) -> int:
    """An integer; one that Python would refuse with words about itself is refused with words about the row."""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits; {_MOST_DIGITS} at most are read")
    return int(digits)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose names occur once each; of two equal ones `json` would silently keep the last."""
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"the field {shown(_twice([name for name, _ in pairs]))} occurs twice")
    return row


def _twice(names: Sequence[str]) -> str | None:
    """The first name that occurs more than once."""
    return next((name for name in names if names.count(name) > 1), None)


def _read_csv(path: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    # `newline=""` leaves line breaks inside quoted cells to the csv module.
    with path.open(encoding="utf-8-sig", newline="") as lines:
        # Strict: a quote inside an unquoted cell is an error and not text.
        reader = csv.reader(lines, strict=True)
        try:
            rows = (cells for cells in reader if cells and (len(cells) > 1 or cells[0].strip()))  # no blank lines
            header = next(rows, [])
            if (name := _twice(header)) is not None:
                raise TaskError(f"{path}, line {reader.line_num}: the column {shown(name)} occurs twice.")
            for cells in rows:
                # `line_num` is the last line of a row, where its cells may span several.
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
        table = pyarrow.parquet.ParquetFile(path).read()
    # Arrow's messages have several lines.
    except pyarrow.ArrowException as error:
        reason = shown(" ".join(str(error).split()), most=200, quoted=False)
        raise TaskError(f"{path} cannot be read as Parquet: {reason}") from error
    if (name := _twice(table.column_names)) is not None:
        raise TaskError(f"{path}: the column {shown(name)} occurs twice.")
    for number, row in enumerate(table.to_pylist()):
        yield f"{path}, row {number}", row
