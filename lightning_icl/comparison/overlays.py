"""Saved fine-tunings: the overlay, its record, and the query vectors of its steps, to be probed later."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_icl.comparison.assemble import demonstrations, finetune
from lightning_icl.errors import OutputError
from lightning_icl.probing.finetuning import Finetuned
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import Demonstrations, KVOverlay
from lightning_icl.results import OVERLAY, to_json

FINETUNE = "finetune.json"
QUERIES = "training_queries.safetensors"


def write_finetuned(folder: Path, probe: ICLProbe, model: str, *, queries: bool) -> None:
    """Write what fine-tuning left behind into a folder.

    Args:
        folder: where to.
        probe: its `finetuned` is written.
        model: name of the model, for the check when it is read.
        queries: also the query vectors of training, without which Kendall is undefined (layers x tokens x width).
    """
    tuned = probe.finetuned
    assert tuned is not None
    record = {"model": model, "demonstrations": demonstrations(probe), "finetune": finetune(probe)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tuned.overlay.tensors.items()}
    (folder / FINETUNE).write_text(to_json(record), encoding="utf-8")
    _write_tensors(folder / OVERLAY, tensors, {"format": "pt", "hash": tuned.overlay.hash})
    if queries and tuned.training_queries is not None:
        vectors = {"training_queries": tuned.training_queries.detach().cpu().contiguous()}
        _write_tensors(folder / QUERIES, vectors, {"format": "pt"})


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Save tensors with the permissions that other files get; a full disk is an `OSError` as everywhere."""
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    shutil.copymode(path.with_name(FINETUNE), path)


def read_finetuned(folder: Path, model: str, expected: Demonstrations) -> Finetuned:
    """Read a fine-tuning back.

    Args:
        folder: the task's folder of a `fit` or `compare` run.
        model: the model now under study.
        expected: the demonstrations now in the prompt.

    Raises:
        OutputError: there is none, it is broken, or it belongs to another model or other demonstrations.
    """
    record = _read_record(folder)
    if record["model"] != model:
        raise OutputError(f"The overlay in {str(folder)!r} was made for model {record['model']!r}, not {model!r}.")
    if record["demonstrations"]["hash"] != expected.hash:
        made, now = record["demonstrations"], expected
        raise OutputError(
            f"The overlay in {str(folder)!r} was made from other demonstrations ({made['count']} with seed "
            f"{made['seed']}) than those of the prompt ({len(now)} with seed {now.seed}). Use the same --task, --data, "
            "--template, --separator, --shots and --seed as in `fit`."
        )
    overlay = KVOverlay(tensors=_read_tensors(folder / OVERLAY))
    saved = record["finetune"]
    tuned = Finetuned(
        overlay=overlay,
        learning_rate=saved["lr"],
        losses=tuple(saved["loss"]),
        update_norms=tuple(saved["update_norm_per_layer"]),
        training_queries=None,
    )
    if (folder / QUERIES).is_file():
        tuned = replace(tuned, training_queries=_read_tensors(folder / QUERIES)["training_queries"])
    return tuned


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / FINETUNE
    if not path.is_file():
        raise OutputError(f"There is no fine-tuning in {str(folder)!r}. Make one with: lightning-icl fit --out …")
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{str(path)!r} cannot be read: {error}") from error
    return record


def _read_tensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{str(path)!r} cannot be read: {error}") from error
