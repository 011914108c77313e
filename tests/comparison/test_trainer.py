"""Which device a Trainer is made for."""

import pytest
from lightning.pytorch.accelerators import MPSAccelerator

from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.comparison.trainer import make_trainer
from lightning_icl.errors import UserError


def test_apples_gpus_which_lack_float64_are_not_chosen_and_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a Mac, where Lightning's own choice would be this device.
    monkeypatch.setattr(MPSAccelerator, "is_available", lambda: True)
    assert make_trainer(CompareSettings(), []).strategy.root_device.type == "cpu"
    with pytest.raises(UserError, match="float64, which Apple's GPUs lack"):
        CompareSettings(accelerator="mps")
