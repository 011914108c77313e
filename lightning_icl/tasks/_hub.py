"""Rows of data sets on the Hugging Face hub, through `datasets`."""

from collections.abc import Iterator, Mapping

from lightning_icl.errors import TaskError
from lightning_icl.tasks.task import HubSource

CONVERTED = "refs/convert/parquet"
"""The branch where the hub keeps every data set as Parquet files, a folder for each configuration."""


def hub_rows(source: HubSource, split: str, task: str) -> tuple[str, Iterator[tuple[str, Mapping[str, object]]]]:
    """Where a split is, and its rows with their places.

    Args:
        source: the data set.
        split: `train` for demonstrations, `validation` for queries.
        task: name of the task, for messages.

    Raises:
        TaskError: the hub cannot be reached, or has no such data set.
    """
    from datasets import load_dataset

    # Paths of the hub vary: `validation` of one data set is `test` of another.
    name = source.train_split if split == "train" else source.query_split
    origin = "/".join(filter(None, ("hub:" + source.path, source.config, name)))
    # `datasets` knows no configurations on that branch, so the folder is addressed instead.
    part = {"data_dir" if source.revision == CONVERTED else "name": source.config}
    try:
        rows = load_dataset(source.path, **part, split=name, revision=source.revision)
    except Exception as error:  # datasets and its network layers fail in many ways of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        advice = "Check the network"
        if "scripts are no longer supported" in reason:
            advice = f"Give `revision: {CONVERTED}`, where the hub has the same rows as files"
        raise TaskError(
            f"The rows of task {task!r} ({origin}) cannot be loaded from the Hugging Face hub: {reason[:300]} "
            f"{advice}; or put the rows into FOLDER/{task}/train.jsonl and validation.jsonl and pass --data FOLDER; "
            "or use the built-in tasks (--task builtin), which need none."
        ) from error
    # A generator: a data set of millions of rows must not be read into memory for its first thousand.
    return origin, ((f"{origin}, row {number}", row) for number, row in enumerate(rows))
