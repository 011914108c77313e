"""Going on where a training stopped: its settings are kept beside its checkpoint and compared before anything runs."""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_icl.errors import OutputError
from lightning_icl.pretraining._whole import LAST, PART, PREVIOUS, newest_whole
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.saving.paths import output_path
from lightning_icl.saving.record import RECORD as MARK
from lightning_icl.saving.record import check_replaceable, record_text
from lightning_icl.saving.workspace import write_text

RECORD = "training.json"
# What a training makes in its folder, by pattern. Nothing else in it is removed.
_MADE = (LAST, PREVIOUS, PART, "*.tokens", ".lightning-icl-*.part", "tensorboard", RECORD, MARK)
# What may differ between the two parts of one training, because no number depends on it. Devices are not among them:
# each takes the weighted mean of its own rows, so that another division of a step is another loss.
_FREE = ("out", "overwrite", "accelerator", "strategy", "logger", "allow_pickle", "trust_remote_code")


def model_folder(settings: PretrainSettings) -> Path:
    """Where the finished model goes.

    Raises:
        OutputError: it is no folder of its own.
    """
    out = output_path(settings.out)
    if out.name in ("", ".."):
        # A path such as "." has no name of its own, and its parent would hold the unfinished training.
        raise OutputError(f"--out {settings.out!r}: the model needs a folder of its own. Give its path.")
    return out


def work_folder(settings: PretrainSettings) -> Path:
    """Where checkpoint, tokens and logs of an unfinished training are: beside the finished model's folder."""
    out = model_folder(settings)
    return out.parent / f"{out.name}.training"


def last_checkpoint(settings: PretrainSettings) -> Path | None:
    """The checkpoint to go on from; None at the beginning.

    Raises:
        OutputError: no checkpoint can be read to its end.
    """
    return newest_whole(work_folder(settings))


def check_folders(settings: PretrainSettings) -> None:
    """Make sure that nothing of anybody else is in the way of the model, or of the training until it is finished.

    Raises:
        OutputError: naming it.
    """
    out, work = model_folder(settings), work_folder(settings)
    if out.exists() and not out.is_dir():
        raise OutputError(f"--out {str(out)!r} is a file. Give a folder that does not exist yet.")
    if (out / "model.safetensors").exists() and not settings.overwrite:
        # The model was finished and the process killed before its own folder was gone.
        if (work / MARK).is_file() and _same_file(work / RECORD, out / RECORD):
            remove_work(work)  # a kill came between the finished model and the end
        raise OutputError(f"{str(out)!r} already holds a model. Give another --out, or pass --overwrite.")
    check_replaceable(out, "Give another --out.")
    # What is in the way must be ours, by mark, or it is left alone.
    if os.path.lexists(work) and (not work.is_dir() or (any(work.iterdir()) and not (work / MARK).is_file())):
        raise OutputError(
            f"{str(work)!r} is where an unfinished training would be kept, but was not made by one, so it is left "
            "alone. Give another --out."
        )


def _same_file(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def remove_work(work: Path) -> None:
    """Remove what a training made in its folder, and the folder if nothing else is in it."""
    # By pattern: nothing that a user put there is touched.
    for path in (path for pattern in _MADE for path in work.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it
        work.rmdir()


def training_record(settings: PretrainSettings, files: Mapping[str, list[str]]) -> dict[str, Any]:
    """Everything that the numbers of a training depend on.

    Args:
        settings: of the training.
        files: what each setting that names files consists of.
    """
    # What changes no number is left out, so that a run can go on elsewhere.
    kept = {name: value for name, value in dataclasses.asdict(settings).items() if name not in _FREE}
    return {**kept, **{f"{name} (files)": list(record) for name, record in files.items()}}


def check_resume(settings: PretrainSettings, record: Mapping[str, Any]) -> None:
    """Make sure that an unfinished training is the one that is asked for.

    Raises:
        OutputError: there is a checkpoint of other settings, or one of which nothing is known.
    """
    work = work_folder(settings)
    if not any((work / name).is_file() for name in (LAST, PREVIOUS)):
        return
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
    # Defaults fill in for settings that a saved record does not know yet.
    defaults = {field.name: field.default for field in dataclasses.fields(PretrainSettings) if field.name not in _FREE}
    saved, current = {**defaults, **saved}, json.loads(json.dumps(record))
    for name in dict.fromkeys((*current, *saved)):
        if saved.get(name) != current.get(name):
            raise OutputError(
                f"{str(folder)!r} holds {what} with {name} = {saved.get(name)!r}; now it is {current.get(name)!r}. "
                f"{advice}"
            )


def is_finished(settings: PretrainSettings, record: Mapping[str, Any]) -> bool:
    """Whether this very training has been finished before.

    Raises:
        OutputError: its folder holds a model of other settings.
    """
    out = model_folder(settings)
    if not (out / "model.safetensors").is_file():
        return False
    try:
        saved = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{str(out)!r} holds a model of which {RECORD} tells nothing. Give another --out.") from error
    _compare(out, "a model", saved, record, "Set it back, or give another --out.")
    return True


def keep_record(settings: PretrainSettings, record: Mapping[str, Any]) -> None:
    """Write the settings where `check_resume` will look for them.

    Raises:
        OutputError: they cannot be written.
    """
    folder = work_folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The mark first: a folder with checkpoints and no mark would be taken for somebody else's.
        (folder / MARK).write_text(record_text({}), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror or error}.") from error
    write_text(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
