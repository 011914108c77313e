"""Whether a part of an experiment is finished, and was made by the settings that are asked for now."""

from collections.abc import Mapping
from pathlib import Path

from lightning_icl.errors import OutputError
from lightning_icl.plain_yaml import read_yaml
from lightning_icl.results import CONFIG


def is_finished(folder: Path, marker: str, settings: Mapping[str, object]) -> bool:
    """Whether a task's folder holds what a run leaves at its end.

    Args:
        folder: of one task of a run.
        marker: the file that is written with the task's figures.
        settings: that the run must have had; where its rows lie is left out, since folders move.

    Raises:
        OutputError: it had others, so that its figures must not stand beside those of now.
    """
    if not (folder / marker).is_file():
        return False
    before = read_yaml(folder / CONFIG, "configuration file")
    assert isinstance(before, dict)
    for name, value in settings.items():
        if before.get(name) != value:
            raise OutputError(
                f"{str(folder)!r} was made with --{name.replace('_', '-')} {before.get(name)}, not {value}. Give "
                "another --out, or ask for the same."
            )
    return True
