"""A user who asks for bfloat16 is told, once, where the processor makes it slow, and nowhere else."""

import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch

from lightning_icl import bfloat16_support
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.pretraining import run
from lightning_icl.pretraining._training_log import TrainingLog
from lightning_icl.pretraining.settings import PretrainSettings

PLAIN = {"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}


def comparing(precision: str, _: Path) -> L.Trainer:
    return make_trainer(CompareSettings(precision=precision, accelerator="cpu"), [])


def pretraining(precision: str, folder: Path) -> L.Trainer:
    settings = PretrainSettings(precision=precision, accelerator="cpu", out=str(folder / "model"))
    return run._trainer(settings, TrainingLog(settings.steps), validating=False)


def warned(
    make: Callable[[str, Path], L.Trainer],
    capabilities: dict[str, object],
    precision: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    bfloat16_support._warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            make(precision, folder)
    return [str(item.message) for item in caught if "bfloat16" in str(item.message)]


@pytest.mark.parametrize(
    ("make", "precision"), [(comparing, "bf16-mixed"), (pretraining, "bf16-true"), (pretraining, "bf16-mixed")]
)
def test_slow_bfloat16_is_said_once_in_plain_words(
    make: Callable[[str, Path], L.Trainer], precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message,) = warned(make, PLAIN, precision, tmp_path, monkeypatch)
    assert message.startswith(f"Precision {precision} was asked for")
    assert message.endswith("Use 32-true.")


@pytest.mark.parametrize("make", [comparing, pretraining])
@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        (PLAIN, "32-true"),
        (PLAIN | {"avx512_bf16": True}, "bf16-true"),
        (PLAIN | {"amx_bf16": True}, "bf16-mixed"),
        ({"architecture": "aarch64"}, "bf16-true"),
    ],
)
def test_nothing_is_said_of_other_precisions_and_processors(
    make: Callable[[str, Path], L.Trainer],
    capabilities: dict[str, object],
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert warned(make, capabilities, precision, tmp_path, monkeypatch) == []


def test_nothing_is_said_of_a_comparison_whose_bfloat16_weights_are_multiplied_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert warned(comparing, PLAIN, "bf16-true", tmp_path, monkeypatch) == []
