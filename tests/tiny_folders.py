"""Folders as users have them: a tiny model with its tokenizer, and a task file with rows. Made once, then copied."""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from tiny_task import word_tokenizer, write_rows
from torch import Tensor

from lightning_icl.tasks.task import Task

TASK = """\
name: tiny
template: "w3 {text} w4"
answers: [w5, w6, w7]
learning_rate: 0.1
rows: {train: rows/train.jsonl, validation: rows/validation.jsonl}
"""
SETTINGS = "--task tiny.yaml --shots 5"
IN_MEMORY = Task(
    name="tiny", templates={"own": "w3 {text} w4"}, answers=("w5", "w6", "w7"), learning_rates={"default": 0.1}
)
"""The same task for rows in memory."""


@cache
def _made(variant: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tiny-model-"))
    tiny_model(variant).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def model_folder(here: Path, variant: str = "llama", name: str = "model") -> Path:
    """A tiny model with its tokenizer in `here/model`, and in `here` a task that it can be asked."""
    shutil.copytree(_made(variant), here / name)
    if not (here / "rows").exists():
        (here / "rows").mkdir()
        write_rows(here / "rows")
        (here / "tiny.yaml").write_text(TASK)
    return here / name


def changed_config(folder: Path, **changes: object) -> None:
    """Change keys of a model's configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def changed_weights(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Replace a model's weights by what a function makes of them."""
    path = folder / "model.safetensors"
    tensors = change({name: tensor.clone() for name, tensor in load_file(path).items()})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
