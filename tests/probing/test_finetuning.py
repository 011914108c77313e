"""Restricted fine-tuning: what it changes, what it leaves alone, and what it refuses."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from exactness import RATE, make_trainer
from plain_passes import kv_masks
from tiny_models import VARIANTS, tiny_model
from tiny_task import tiny_data
from torch.utils.data import DataLoader

from lightning_icl.errors import NumericalError, ProtocolError
from lightning_icl.models.kv import LaidOver
from lightning_icl.models.masters import Masters
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import KVOverlay


def fitted(variant: str, folder: Path, rate: float = RATE, **settings: object) -> ICLProbe:
    data = tiny_data(folder, **settings)
    probe = ICLProbe(tiny_model(variant), data.demonstrations)
    make_trainer(KVFinetuning(rate)).fit(probe, datamodule=data)
    return probe


@pytest.mark.parametrize(
    "variant", ["gpt2", "gpt_neox", "phi3", "bloom", "falcon-grouped", "falcon-multiquery", "llama"]
)
def test_only_keys_and_values_change_and_queries_stay_bit_identical(variant: str, tmp_path: Path) -> None:
    probe = fitted(variant, tmp_path)
    before = {name: parameter.clone() for name, parameter in probe.model.named_parameters()}
    masks = kv_masks(probe.model)
    assert probe.finetuned is not None
    with LaidOver(probe.model, probe.finetuned.overlay).active():
        for name, parameter in probe.model.named_parameters():
            changed = parameter != before[name]
            allowed = masks.get(name, torch.zeros_like(changed))
            assert not (changed & ~allowed).any(), name
            if name in masks and name.endswith("weight"):
                assert (changed & allowed).any(), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_model_is_left_as_it_was_found(variant: str, tmp_path: Path) -> None:
    model = tiny_model(variant)
    model.requires_grad_(True)
    next(model.parameters()).requires_grad_(False)
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    own_forwards = [name for name, module in model.named_modules() if "forward" in module.__dict__]
    implementation = model.config._attn_implementation
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    data = tiny_data(tmp_path)
    probe = ICLProbe(model, data.demonstrations)
    trainer = make_trainer(KVFinetuning(RATE))
    trainer.fit(probe, datamodule=data)
    trainer.validate(probe, datamodule=data, verbose=False)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name][0]), name
        assert value.requires_grad == before[name][1], name
        assert value.grad is None, name
    assert model.config._attn_implementation == implementation
    assert hooks == sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    assert own_forwards == [name for name, module in model.named_modules() if "forward" in module.__dict__]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, logits)


def test_small_steps_do_not_vanish_in_bfloat16_weights(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    norms = []
    for dtype in (torch.float32, torch.bfloat16):
        probe = ICLProbe(tiny_model("llama", dtype=dtype), data.demonstrations)
        precision = "bf16-true" if dtype == torch.bfloat16 else "32-true"
        make_trainer(KVFinetuning(1e-4), precision=precision).fit(probe, datamodule=data)
        assert probe.finetuned is not None
        norms.append(torch.tensor(probe.finetuned.update_norms))
    torch.testing.assert_close(norms[1], norms[0], rtol=0.05, atol=0.0)


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    first, second = (fitted("gpt2", tmp_path).finetuned for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.overlay.hash == second.overlay.hash


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_epochs", 2),
        ("accumulate_grad_batches", 2),
        ("gradient_clip_val", 1.0),
        ("limit_train_batches", 3),
        ("max_steps", 2),
        ("precision", "16-mixed"),
    ],
)
def test_a_trainer_that_breaks_the_protocol_is_refused(setting: str, value: object, tmp_path: Path) -> None:
    if setting == "precision" and not torch.cuda.is_available():
        pytest.skip("float16 training needs a GPU to be asked for")
    data = tiny_data(tmp_path)
    probe = ICLProbe(tiny_model("gpt2"), data.demonstrations)
    with pytest.raises(ProtocolError, match=setting):
        make_trainer(KVFinetuning(RATE), **{setting: value}).fit(probe, datamodule=data)
    assert all(parameter.grad is None for parameter in probe.model.parameters())


def test_shuffled_or_batched_demonstrations_are_refused(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    steps = data.train_dataloader().dataset
    for loader in (
        DataLoader(steps, batch_size=1, sampler=[1, 0, 2, 3, 4]),
        DataLoader(steps, batch_size=2, collate_fn=lambda rows: rows[0][None]),
        DataLoader(steps, batch_size=1, sampler=[0, 1, 2]),
    ):
        probe = ICLProbe(tiny_model("gpt2"), data.demonstrations)
        with pytest.raises(ProtocolError):
            make_trainer(KVFinetuning(RATE)).fit(probe, train_dataloaders=loader)


def test_fitting_without_the_callback_is_refused(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    with pytest.raises(ProtocolError, match="KVFinetuning"):
        make_trainer().fit(ICLProbe(tiny_model("gpt2"), data.demonstrations), datamodule=data)


def test_a_rate_that_blows_up_stops_and_gives_the_weights_back(tmp_path: Path) -> None:
    data, model = tiny_data(tmp_path), tiny_model("gpt2")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(NumericalError, match="smaller --lr"):
        make_trainer(KVFinetuning(1e30)).fit(ICLProbe(model, data.demonstrations), datamodule=data)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_an_overlay_of_another_model_is_refused() -> None:
    from lightning_icl.errors import ModelError

    overlay = KVOverlay(tensors={"transformer.h.0.attn.c_attn.weight::kv": torch.zeros(2, 2)})
    with pytest.raises(ModelError, match="does not fit"):
        LaidOver(tiny_model("gpt2"), overlay)


@pytest.mark.parametrize("variant", ["gpt2", "gpt_neox", "llama"])
def test_overlays_that_share_scratch_are_laid_over_in_turn(variant: str) -> None:
    model = tiny_model(variant)
    overlays, scratch = [], {}
    for _ in range(2):
        masters = Masters(model)
        with torch.no_grad():
            for parameter in masters.parameters:
                parameter += torch.randn_like(parameter)
        overlays.append(masters.overlay())
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    alone, shared = ([LaidOver(model, overlay, given) for overlay in overlays] for given in (None, scratch))
    for one, other in (*zip(alone, shared, strict=True), (alone[0], shared[0])):
        with one.active():
            expected = {name: parameter.clone() for name, parameter in model.named_parameters()}
        with other.active():
            assert all(torch.equal(expected[name], parameter) for name, parameter in model.named_parameters())
            assert not all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    if scratch:
        with shared[0].active(), pytest.raises(RuntimeError, match="on together"), shared[1].active():
            pass


def test_what_was_learnt_does_not_live_as_long_as_the_data(tmp_path: Path) -> None:
    """A run of many tasks holds the data of all of them, and the weights of one."""
    data = tiny_data(tmp_path)
    probe = ICLProbe(tiny_model("gpt2"), data.demonstrations)
    trainer = make_trainer(KVFinetuning(0.1))
    trainer.fit(probe, datamodule=data)
    trainer.validate(probe, datamodule=data, verbose=False)
    gone = weakref.ref(probe), weakref.ref(trainer)
    del probe, trainer
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert data.demonstrations
