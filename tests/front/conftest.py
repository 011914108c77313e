"""A model, a task and rows for the calls, and what the command line makes of them."""

import json
from pathlib import Path

import pytest
from tiny_folders import SETTINGS, model_folder

from lightning_icl.cli import main

TYPED = {
    "typed": f"compare {SETTINGS}",
    "swept": "sweep --task tiny.yaml --shots 5 --seeds 1,2 --lrs 0.1,0.2 --heldout 4",
    "dual": f"dual-form {SETTINGS} --layers 0 --limit 4",
    "rungs": f"weight-update {SETTINGS} --limit 4 --held-out 4",
}


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, `rows`, and the command line's runs by their names in `TYPED`."""
    folder = tmp_path_factory.mktemp("front")
    model_folder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, line in TYPED.items():
            main(f"{line} --model model --out {name}".split())
    return folder


@pytest.fixture(scope="session")
def rows(here: Path) -> dict[str, list[dict]]:
    return {
        split: [json.loads(line) for line in (here / f"rows/{split}.jsonl").read_text().splitlines()]
        for split in ("train", "validation")
    }
