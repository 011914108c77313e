"""Going on where a training stopped: its settings are kept beside its checkpoint and compared before anything runs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_icl.errors import OutputError
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.saving.workspace import write_text

RECORD = "training.json"
# What may differ between the two parts of one training, because no number depends on it.
_FREE = ("out", "overwrite", "accelerator", "strategy", "logger", "allow_pickle", "trust_remote_code")


def work_folder(settings: PretrainSettings) -> Path:
    """Where checkpoint, tokens and logs of an unfinished training are: beside the finished model's folder."""
    out = Path(settings.out).expanduser()
    return out.parent / f"{out.name}.training"


def last_checkpoint(settings: PretrainSettings) -> Path | None:
    """The checkpoint to go on from; None at the beginning."""
    path = work_folder(settings) / "last.ckpt"
    return path if path.is_file() else None


def training_record(settings: PretrainSettings, files: Mapping[str, list[str]]) -> dict[str, Any]:
    """Everything that the numbers of a training depend on.

    Args:
        settings: of the training.
        files: what each setting that names files consists of.
    """
    kept = {name: value for name, value in dataclasses.asdict(settings).items() if name not in _FREE}
    return {**kept, **{f"{name} (files)": list(record) for name, record in files.items()}}


def check_resume(settings: PretrainSettings, record: Mapping[str, Any]) -> None:
    """Make sure that an unfinished training is the one that is asked for.

    Raises:
        OutputError: there is a checkpoint of other settings, or one of which nothing is known.
    """
    if last_checkpoint(settings) is None:
        return
    work = work_folder(settings)
    path = work / RECORD
    advice = f"Give another --out, or remove {str(work)!r} to begin again."
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{str(work)!r} holds a checkpoint, but {RECORD} cannot be read beside it. {advice}"
        ) from error
    _compare(work, "an unfinished training", saved, record, f"Set it back to go on. {advice}")


def _compare(folder: Path, what: str, saved: Mapping[str, Any], record: Mapping[str, Any], advice: str) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(PretrainSettings) if field.name not in _FREE}
    saved, wanted = {**defaults, **saved}, json.loads(json.dumps(record))
    for name in dict.fromkeys((*wanted, *saved)):
        if saved.get(name) != wanted.get(name):
            raise OutputError(
                f"{str(folder)!r} holds {what} with {name} = {saved.get(name)!r}; now it is {wanted.get(name)!r}. "
                f"{advice}"
            )


def is_finished(settings: PretrainSettings, record: Mapping[str, Any]) -> bool:
    """Whether this very training has been finished before.

    Raises:
        OutputError: its folder holds a model of other settings.
    """
    out = Path(settings.out).expanduser()
    if not (out / "model.safetensors").is_file():
        return False
    try:
        saved = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{str(out)!r} holds a model of which {RECORD} tells nothing. Give another --out.") from error
    _compare(out, "a model", saved, record, "Set it back, or give another --out.")
    return True


def keep_record(settings: PretrainSettings, record: Mapping[str, Any]) -> None:
    """Write the settings where `check_resume` will look for them."""
    folder = work_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
