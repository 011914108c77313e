"""Rows that are in memory already: a list of dictionaries, a data set of `datasets`, or a frame of pandas."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lightning_icl.errors import TaskError, did_you_mean
from lightning_icl.tasks.task import MemorySource

SPLITS = ("train", "validation")


def memory_source(splits: Mapping[str, Any]) -> MemorySource:
    """The source that both splits in memory make.

    Args:
        splits: rows by split, as a dictionary or a `DatasetDict`; further splits are left alone.

    Raises:
        TaskError: a split is missing.
    """
    for split in SPLITS:
        if split not in splits:
            hint = did_you_mean(split, map(str, splits))
            raise TaskError(f"The rows in memory have no split {split!r}: give both of {', '.join(SPLITS)}. {hint}")
    return MemorySource(train=splits["train"], validation=splits["validation"])


def memory_rows(rows: Any, split: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Rows with their places.

    Args:
        rows: what holds them.
        split: what they are called.

    Raises:
        TaskError: they are of another kind.
    """
    # Told by module name: pandas need not be installed.
    records = rows.to_dict("records") if type(rows).__module__.split(".")[0] == "pandas" else rows
    # A dictionary and a text can be iterated too, but are no rows.
    if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
        raise TaskError(
            f"The {split} rows are a {type(rows).__name__}. Give a list of dictionaries, a datasets.Dataset or a "
            "pandas DataFrame; rows in files are `data`, a folder."
        )
    for number, row in enumerate(records):
        if not isinstance(row, Mapping):
            raise TaskError(f"{split} row {number}: a row must be a dictionary, not a {type(row).__name__}.")
        yield f"{split} row {number} in memory", row
