"""What rounding of the weights does to the figures, against fine-tuning the rounded model by itself."""

import copy
from pathlib import Path

import pytest
import torch
from exactness import RATE, make_trainer
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.comparison.controls._context import ControlContext
from lightning_icl.comparison.controls.rounding import STEP, rounded_otherwise, rounding_contrast, sensitivity
from lightning_icl.models.kv import LaidOver, slices
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.finetuning_run import Finetuned
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import Demonstrations, KVOverlay


@pytest.mark.parametrize("variant", ["gpt2", "llama", "gpt_neox"])
def test_weights_change_by_their_last_digit_alone(variant: str) -> None:
    model = tiny_model(variant)
    other, raised = rounded_otherwise(model, seed=3), []
    for part in slices(model):
        before, after = part.read().double(), other.tensors[part.name].double()
        share = ((after - before) / before).nan_to_num(0)
        assert share.abs().max() <= 2 * STEP
        assert (share != 0).double().mean() > 0.9
        raised.append((share > 0).double())
    assert 0.45 < torch.cat([part.flatten() for part in raised]).mean() < 0.55
    assert other.hash == rounded_otherwise(model, seed=3).hash != rounded_otherwise(model, seed=4).hash


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_sensitivity_is_the_difference_from_a_model_that_begins_rounded_otherwise(variant: str, tmp_path: Path) -> None:
    data, model = tiny_data(tmp_path), tiny_model(variant).double()

    def fit(demonstrations: Demonstrations, *, base: KVOverlay | None = None, **_: object) -> Finetuned:
        probe = ICLProbe(model, demonstrations)
        with LaidOver(model, base).active():
            make_trainer(KVFinetuning(RATE), precision="64-true").fit(probe, datamodule=data)
        return probe.finetuned

    probe = ICLProbe(model, data.demonstrations)
    trainer = make_trainer(KVFinetuning(RATE), precision="64-true")
    trainer.fit(probe, datamodule=data)
    context = ControlContext(model=model, data=data, finetuned=probe.finetuned, fit=fit, learning_rate=RATE, seed=1)
    probe.also_compare([rounding_contrast(context)])
    trainer.validate(probe, datamodule=data, verbose=False)
    changes = sensitivity(probe)
    assert changes is not None

    # The same by hand: a copy of the model with the other weights, its overlay seen from the model as it is.
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for part in slices(rounded):
            part.parameter[part.place] = rounded_otherwise(model, seed=1).tensors[part.name]
    alone = ICLProbe(rounded, data.demonstrations)
    make_trainer(KVFinetuning(RATE), precision="64-true").fit(alone, datamodule=data)
    other = ICLProbe(model, data.demonstrations, finetuned=alone.finetuned)
    make_trainer().validate(other, datamodule=data, verbose=False)
    for level, form in (("sim_aou", "normalised"), ("sim_aou", "raw"), ("sim_am", "difference")):
        one, two = (getattr(getattr(found.comparison, level), form) for found in (probe, other))
        name = {"normalised": "value"}.get(form, form)
        assert changes[f"{level}.{name}"] == pytest.approx(abs(one.value - two.value), abs=1e-12)
        assert 0 < changes[f"{level}.{name}"] < 1e-3
    assert changes["sim_am.zsl"] == 0


def test_without_a_check_there_is_no_sensitivity(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    probe = ICLProbe(tiny_model("gpt2"), data.demonstrations)
    make_trainer().validate(probe, datamodule=data, verbose=False)
    assert sensitivity(probe) is None
