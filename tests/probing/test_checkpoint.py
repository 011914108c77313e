"""Lightning's checkpoints of a probe: the fine-tuning comes back to the bit, on the same model and prompt alone."""

from pathlib import Path

import lightning as L
import pytest
import torch
from exactness import RATE, make_trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.data.module import ICLDataModule
from lightning_icl.errors import ModelError, ProtocolError
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe

# A Trainer without the callback that saved is what restoring elsewhere means.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


def fitted(folder: Path, variant: str = "gpt2", **saving: object) -> tuple[L.Trainer, ICLProbe, ICLDataModule]:
    data = tiny_data(folder)
    probe = ICLProbe(tiny_model(variant), data.demonstrations)
    saver = ModelCheckpoint(folder / "saved", **saving)
    trainer = make_trainer(KVFinetuning(RATE), saver, enable_checkpointing=True)
    trainer.fit(probe, datamodule=data)
    return trainer, probe, data


def assert_same(probe: ICLProbe, other: ICLProbe) -> None:
    one, two = probe.finetuned, other.finetuned
    assert one is not None
    assert two is not None
    assert one.overlay.hash == two.overlay.hash
    assert torch.equal(one.training_queries, two.training_queries)
    assert (one.learning_rate, one.losses, one.update_norms) == (two.learning_rate, two.losses, two.update_norms)


@pytest.mark.parametrize("variant", ["gpt2", "llama", "gpt_neox"])
@pytest.mark.parametrize("which", ["best", "last", "path"])
def test_a_checkpoint_is_validated_by_another_probe(which: str, variant: str, tmp_path: Path) -> None:
    trainer, probe, data = fitted(tmp_path, variant, save_last=True)
    trainer.validate(probe, datamodule=data, verbose=False)
    path = trainer.checkpoint_callback.best_model_path if which == "path" else which
    other = ICLProbe(tiny_model(variant), data.demonstrations)
    validating = make_trainer() if which == "path" else trainer  # only the one that saved knows best and last
    validating.validate(other, datamodule=data, ckpt_path=str(path), verbose=False)
    assert_same(other, probe)
    assert other.predictions == probe.predictions
    assert torch.equal(other.comparison.kendall.tokens.per_layer, probe.comparison.kendall.tokens.per_layer)
    saved = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    kept = sum(tensor.numel() for tensor in saved["state_dict"].values())
    assert 0 < kept < sum(parameter.numel() for parameter in probe.model.parameters()) / 3


def test_a_finished_checkpoint_needs_no_further_steps(tmp_path: Path) -> None:
    trainer, probe, data = fitted(tmp_path)
    other = ICLProbe(tiny_model("gpt2"), data.demonstrations)
    again = make_trainer(KVFinetuning(RATE))
    again.fit(other, datamodule=data, ckpt_path=trainer.checkpoint_callback.best_model_path)
    assert again.global_step == len(data.demonstrations)
    assert_same(other, probe)
    assert all(parameter.requires_grad for parameter in other.model.parameters())


def test_a_probe_is_loaded_from_a_checkpoint_as_lightning_loads_modules(tmp_path: Path) -> None:
    trainer, probe, data = fitted(tmp_path)
    path = tmp_path / "by_hand.ckpt"
    trainer.save_checkpoint(path)
    model = tiny_model("gpt2")
    assert_same(ICLProbe.load_from_checkpoint(path, model=model, demonstrations=data.demonstrations), probe)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    trainer, probe, data = fitted(tmp_path, every_n_train_steps=2, save_top_k=-1, save_on_train_epoch_end=False)
    early = next((tmp_path / "saved").glob("*step=2*"))
    whole = tmp_path / "whole.ckpt"
    trainer.save_checkpoint(whole)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({**torch.load(whole, weights_only=True), "finetuning": None}, foreign)
    fewer = ICLProbe(tiny_model("gpt2"), tiny_data(tmp_path, shots=4).demonstrations)
    for path, other, error, words in (
        (early, probe, ProtocolError, "saved after 2 of 5 steps"),
        (whole, fewer, ProtocolError, "other demonstrations"),
        (whole, ICLProbe(tiny_model("llama"), data.demonstrations), ModelError, "does not fit"),
        (whole, ICLProbe(tiny_model("gpt2", seed=1), data.demonstrations), ProtocolError, "other weights"),
        (foreign, probe, ProtocolError, "not saved by an ICLProbe"),
    ):
        with pytest.raises(error, match=words):
            make_trainer().validate(other, datamodule=data, ckpt_path=str(path), verbose=False)
