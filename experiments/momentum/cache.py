"""What was trained and measured before is kept, and not made again where the very same is asked for."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.results import to_json
from lightning_icl.saving.workspace import write_text

if TYPE_CHECKING:
    from lightning_icl.pretraining.text import Text

# Raised where more is measured than before: what was kept by then is measured again.
_FORMAT = 3


def train_once(training: PretrainSettings) -> bool:
    """Train a model, or go on with it; whether there was anything left to do.

    Raises:
        UserError: something that cannot be used, or a training of other settings is in the way.
    """
    from lightning_icl.pretraining.resume import is_finished
    from lightning_icl.pretraining.run import full_record, pretrain

    if is_finished(training, full_record(training)):
        return False
    Path(training.out).parent.mkdir(parents=True, exist_ok=True)
    pretrain(training)
    return True


def measured_once(path: Path, asked: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What a file holds if the very same was asked for; else it is measured now and kept.

    Args:
        path: JSON file.
        asked: everything that the numbers depend on.
        measure: makes them.
    """
    # As JSON has it: tuples become lists, so that what is read can equal what is asked.
    current = json.loads(to_json({"format": _FORMAT, **asked}))
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("asked") == current:
            return dict(content["found"])
    found = json.loads(to_json(measure()))
    write_text(path, to_json({"asked": current, "found": found}))
    return dict(found)


def text_record(text: "Text") -> list[str]:
    """What a text consists of, wherever its files lie: figures do not change with a folder's name."""
    return [f"{path.name} ({path.stat().st_size} bytes)" for path in text.files] or text.record
