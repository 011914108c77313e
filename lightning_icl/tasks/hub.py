"""Rows of data sets on the Hugging Face hub, through `datasets`."""

from collections.abc import Iterator, Mapping

from lightning_icl.errors import TaskError
from lightning_icl.tasks.task import HubSource


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

    name = source.train_split if split == "train" else source.query_split
    origin = "/".join(filter(None, ("hub:" + source.path, source.config, name)))
    try:
        rows = load_dataset(source.path, source.config, split=name, revision=source.revision)
    except Exception as error:  # datasets and its network layers fail in many ways of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TaskError(
            f"The rows of task {task!r} ({origin}) cannot be loaded from the Hugging Face hub: {reason[:300]} Check "
            f"the network; or put the rows into FOLDER/{task}/train.jsonl and validation.jsonl and pass --data FOLDER; "
            "or use the built-in tasks (--task builtin), which need none."
        ) from error
    return origin, ((f"{origin}, row {number}", row) for number, row in enumerate(rows))
