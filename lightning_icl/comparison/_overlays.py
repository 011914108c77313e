"""Saved fine-tunings: the overlay, its record, and the query vectors of its steps, to be probed later.

Every tensor is saved with its hash, which is checked when it is read: a flipped bit would move every figure in silence.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_icl.comparison.assemble import demonstrations_record, finetune_record, fingerprints_record
from lightning_icl.comparison.plan import Plan, PlannedTask
from lightning_icl.errors import OutputError
from lightning_icl.models.architecture import head_counts
from lightning_icl.probing.finetuning_run import Finetuned
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import KVOverlay
from lightning_icl.results import OVERLAY, to_json
from lightning_icl.saving.tensors import save_tensors

FINETUNE = "finetune.json"
QUERIES = "training_queries.safetensors"
_QUERIES = "training_queries"  # their name inside that file, and in the record of hashes
_AGAIN = "Fine-tune again: lightning-icl fit."
_NEEDED = {
    "model": str,
    "demonstrations": {"hash": str, "count": int, "seed": int},
    "finetune": {"lr": float, "loss": list, "update_norm_per_layer": list},
    "fingerprints": {"weights": str, "overlay": str},
}


def write_finetuned(folder: Path, plan: Plan, planned: PlannedTask, probe: ICLProbe, *, queries: bool) -> None:
    """Write what fine-tuning left behind into a folder.

    Args:
        folder: where to.
        plan: the run.
        planned: the task.
        probe: its `finetuned` is written.
        queries: also the query vectors of training, without which Kendall is undefined (layers x tokens x width).
    """
    tuned = probe.finetuned
    assert tuned is not None
    # Query vectors may be larger than the model, and `compare` has used them already.
    vectors = {} if tuned.training_queries is None or not queries else {_QUERIES: tuned.training_queries}
    record = {
        "model": plan.subject.source.name,
        "demonstrations": demonstrations_record(probe),
        "finetune": finetune_record(probe),
        "fingerprints": {
            **fingerprints_record(plan, planned, probe),
            **({_QUERIES: _hash(vectors)} if vectors else {}),
        },
    }
    (folder / FINETUNE).write_text(to_json(record), encoding="utf-8")
    save_tensors(folder / OVERLAY, tuned.overlay.tensors, {"format": "pt", "hash": tuned.overlay.hash})
    if vectors:
        save_tensors(folder / QUERIES, vectors, {"format": "pt", "hash": _hash(vectors)})


def _hash(tensors: Mapping[str, Tensor]) -> str:
    return KVOverlay(tensors=tensors).hash


def read_finetuned(folder: Path, plan: Plan, planned: PlannedTask) -> Finetuned:
    """Read a fine-tuning back.

    Args:
        folder: the task's folder of a `fit` or `compare` run.
        plan: the run, with the model now under study.
        planned: the task, with the demonstrations now in the prompt.

    Raises:
        OutputError: there is none, it is damaged, or it belongs to other weights or other demonstrations.
    """
    record = _read_record(folder)
    expected = planned.data.demonstrations
    made = record["demonstrations"]
    # Demonstrations first: other ones are the likelier mistake, and the cheaper check.
    if made["hash"] != expected.hash:
        raise OutputError(
            f"The overlay in {str(folder)!r} was made from other demonstrations ({made['count']} with seed "
            f"{made['seed']}) than those of the prompt ({len(expected)} with seed {expected.seed}). Use the same "
            "--task, --data, --template, --separator, --chat, --shots and --seed as in `fit`."
        )
    if record["fingerprints"]["weights"] != plan.subject.weights:
        raise OutputError(
            f"The overlay in {str(folder)!r} was made for other weights than those of the model "
            f"{plan.subject.source.name!r} now (then named {record['model']!r}). Give that model, or fine-tune this "
            "one: lightning-icl fit."
        )
    # Everything below was learnt on these demonstrations by these weights.
    saved, hashes = record["finetune"], record["fingerprints"]
    tuned = Finetuned(
        overlay=KVOverlay(tensors=_read_tensors(folder / OVERLAY, hashes["overlay"])),
        learning_rate=saved["lr"],
        losses=tuple(saved["loss"]),
        update_norms=tuple(saved["update_norm_per_layer"]),
        training_queries=None,
    )
    if _QUERIES in hashes:
        heads, _, width = head_counts(plan.subject.config)
        shape = (int(plan.subject.config.num_hidden_layers), len(expected.prefix_token_ids), heads * width)
        vectors = _read_tensors(folder / QUERIES, hashes[_QUERIES]).get(_QUERIES)
        if vectors is None or vectors.shape != shape:
            saved_shape = None if vectors is None else tuple(vectors.shape)
            raise OutputError(
                f"{str(folder / QUERIES)!r} holds query vectors of shape {saved_shape}; {shape} is needed. {_AGAIN}"
            )
        tuned = replace(tuned, training_queries=vectors)
    return tuned


def _read_record(folder: Path) -> dict[str, Any]:
    """The content of `finetune.json`, everything that is used of it there and of its type."""
    path = folder / FINETUNE
    if not path.is_file():
        raise OutputError(f"There is no fine-tuning in {str(folder)!r}. Make one with: lightning-icl fit --out …")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{str(path)!r} cannot be read: {str(error)[:200]}. {_AGAIN}") from error
    _check(path, record, _NEEDED, "")
    return dict(record)


def _check(path: Path, content: Any, needed: Any, place: str) -> None:
    """Everything that is used of a record is there and of its type."""
    if isinstance(needed, dict) and isinstance(content, dict):
        for key, inner in needed.items():
            _check(path, content.get(key), inner, f"{place}.{key}" if place else key)
        return
    # A list stands for one of numbers, each of which is checked.
    numbers = content if needed is list and isinstance(content, list) else [content]
    kind = float if needed is list else needed
    if isinstance(needed, dict) or not all(_is(value, kind) for value in numbers):
        raise OutputError(f"{str(path)!r} is damaged: {place or 'its content'} is missing or wrong. {_AGAIN}")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        # A bool is an int in Python, but no number here.
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and not isinstance(value, bool)


def _read_tensors(path: Path, expected: str) -> dict[str, Tensor]:
    """Tensors as they were saved, to the bit."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{str(path)!r} cannot be read: {str(error)[:200]}. {_AGAIN}") from error
    # Over names and bits, so a flipped bit or a renamed tensor is found.
    if _hash(tensors) != expected:
        raise OutputError(f"{str(path)!r} has changed since it was saved: its hash is another. {_AGAIN}")
    # A file of ours can still hold NaN: saved after a step that overflowed.
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise OutputError(f"{str(path)!r} holds NaN or infinite numbers in {name!r}. {_AGAIN}")
    return tensors
