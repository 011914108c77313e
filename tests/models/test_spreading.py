"""Models spread over several devices: the same numbers, every layer's tensors on its own device, clear refusals."""

import os
import subprocess
import sys
from pathlib import Path

import accelerate
import pytest
import torch
from exactness import RATE, make_trainer
from tiny_models import VARIANTS, tiny_model
from tiny_task import tiny_data
from transformers import PreTrainedModel

from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.errors import ModelError, UserError
from lightning_icl.models import spreading
from lightning_icl.models.architecture import architecture_of
from lightning_icl.models.finding import find_model
from lightning_icl.models.loading import load_model
from lightning_icl.models.spreading import check_spread, check_spreadable
from lightning_icl.probing import module as probing
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe


def numbers(model: PreTrainedModel, folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Overlay and metrics of a comparison."""
    data = tiny_data(folder)
    probe = ICLProbe(model, data.demonstrations)
    trainer = make_trainer(KVFinetuning(RATE))
    trainer.fit(probe, datamodule=data)
    (metrics,) = trainer.validate(probe, datamodule=data, verbose=False)
    assert probe.finetuned is not None
    return dict(probe.finetuned.overlay.tensors), metrics


@pytest.mark.parametrize("variant", ["gpt2", "llama", "gemma2", "falcon-grouped", "llama-momentum"])
def test_a_spread_model_gives_the_numbers_of_a_whole_one(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = numbers(tiny_model(variant), tmp_path)
    spread = tiny_model(variant)
    layers = architecture_of(spread.config).layers
    parts = [name for name, _ in spread.get_submodule(layers).named_children()]
    accelerate.dispatch_model(
        spread,
        {"": "cpu", **{f"{layers}.{name}": "cpu" for name in parts}},
        main_device="cpu",
        force_hooks=True,
    )
    monkeypatch.setattr(probing, "is_spread", lambda _: True)
    forwards = [module.forward for module in spread.modules()]
    found = numbers(spread, tmp_path)
    assert found[0].keys() == whole[0].keys()
    assert all(torch.equal(found[0][name], tensor) for name, tensor in whole[0].items())
    assert found[1] == pytest.approx(whole[1], rel=0, abs=0, nan_ok=True)
    assert [module.forward for module in spread.modules()] == forwards


def test_every_tensor_meets_only_tensors_of_its_layers_device() -> None:
    pytest.importorskip("torch.utils.backend_registration")
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot simulate devices")
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here.parent), "OMP_NUM_THREADS": "1"}
    program = subprocess.run(
        [sys.executable, str(here / "simulated_devices.py")], env=environment, capture_output=True, text=True
    )
    lines = dict(line.split() for line in program.stdout.splitlines())
    assert len(lines) >= len(VARIANTS) - 2, program.stderr
    assert set(lines.values()) == {"visited"}, program.stderr


def test_a_model_that_fits_no_gpu_is_refused() -> None:
    model = tiny_model("gpt2")
    model.hf_device_map = {
        "transformer.wte": 0,
        "transformer.h.0": 1,
        "transformer.h.1": "cpu",
        "transformer.h.2": "disk",
    }
    with pytest.raises(ModelError, match=r"2 of its parts .* 'transformer\.h\.1'.*bf16"):
        check_spread(model)


def test_without_gpus_nothing_is_spread(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has GPUs")
    tiny_model("gpt2").save_pretrained(tmp_path)
    assert not spreading.is_spread(load_model(find_model(str(tmp_path)), device_map="auto"))


def test_what_cannot_be_spread_is_said_before_loading(tmp_path: Path) -> None:
    tiny_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="fresh"):
        check_spreadable(find_model(f"random:{tmp_path}"))


@pytest.mark.parametrize("settings", [{"devices": 2}, {"num_nodes": 2}, {"accelerator": "cpu"}])
def test_one_process_holds_the_spread_model(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "localhost")  # without a launcher several machines are refused before
    with pytest.raises(UserError, match="leave --devices"):
        CompareSettings(device_map="auto", **settings)  # type: ignore[arg-type]
