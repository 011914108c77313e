"""Controls that learn from other demonstrations take their steps together, and come to what each comes to alone."""

from pathlib import Path

import pytest
import torch
from exactness import RATE, make_trainer
from single_runs import PRECISIONS, alone
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.comparison.controls import examples
from lightning_icl.comparison.controls.catalogue import choose
from lightning_icl.comparison.controls.run import Controlled, make_controls
from lightning_icl.comparison.plan import PlannedTask
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.errors import NumericalError
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.finetuning_run import FinetuningRun
from lightning_icl.probing.probe import ICLProbe

LEARNT = ["labels-random", "labels-flipped", "labels-abstract", "order-1", "order-2", "order-3", "other-task"]
NAMES = "labels-random,labels-flipped,labels-abstract,order,other-task"


@pytest.fixture(autouse=True)
def letters_of_the_tiny_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "LETTERS", ("w40", "w41", "w42"))


def controlled(variant: str, dtype: torch.dtype, folder: Path, rates: dict[str, float]) -> tuple[ICLProbe, Controlled]:
    data = tiny_data(folder, "single")
    probe = ICLProbe(tiny_model(variant, dtype=dtype), data.demonstrations)
    make_trainer(KVFinetuning(RATE), precision=PRECISIONS[dtype]).fit(probe, datamodule=data)
    (folder / "other").mkdir()
    neighbour = tiny_data(folder / "other", "multi", seed=5, shots=3).demonstrations
    planned = PlannedTask(name="tiny", task=data.task, data=data, learning_rate=RATE, neighbour=neighbour)
    settings = CompareSettings(model="tiny", accelerator="cpu", precision=PRECISIONS[dtype])
    return probe, make_controls(settings, planned, probe, choose(NAMES), rates)


@pytest.mark.parametrize("variant", ["gpt2", "llama", "gpt_neox"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-6)])
def test_what_controls_learn_together_is_what_each_learns_alone(
    variant: str, dtype: torch.dtype, tolerance: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe, made = controlled(variant, dtype, tmp_path, {"labels-flipped": 0.01})
    assert "tiny, controls: 7 fine-tunings take their steps together" in capsys.readouterr().out
    assert [contrast.name for contrast in probe.contrasts] == LEARNT
    near = {"rtol": tolerance, "atol": tolerance}
    for contrast in probe.contrasts:
        rate = 0.01 if contrast.name == "labels-flipped" else RATE
        assert contrast.learning_rate == rate
        learnt = contrast.demonstrations
        if contrast.name == "other-task":
            learnt = next(run.demonstrations for run in made.learnt if len(run.demonstrations) == 3)
        single = alone(probe.model, FinetuningRun(learning_rate=rate, demonstrations=learnt))
        assert contrast.ft.overlay is not None
        for name, tensor in contrast.ft.overlay.tensors.items():
            torch.testing.assert_close(tensor, single.overlay.tensors[name], **near)
        if contrast.name != "other-task":
            torch.testing.assert_close(contrast.training_queries, single.training_queries, **near)


def test_a_control_that_diverges_is_left_out_with_its_reason_and_touches_no_other(tmp_path: Path) -> None:
    probe, made = controlled("gpt2", torch.float64, tmp_path, {"order": 1e200})
    assert [contrast.name for contrast in probe.contrasts] == [name for name in LEARNT if "order" not in name]
    reason = next(item for run, item in made.learnt.items() if run.learning_rate == 1e200)
    assert isinstance(reason, NumericalError)
    assert made.impossible == {"order": str(reason)}
    assert "(learning rate 1e+200). Use a smaller --lr." in str(reason)
    contrast = probe.contrasts[0]
    single = alone(probe.model, FinetuningRun(learning_rate=RATE, demonstrations=contrast.demonstrations))
    assert contrast.ft.overlay is not None
    for name, tensor in contrast.ft.overlay.tensors.items():
        torch.testing.assert_close(tensor, single.overlay.tensors[name])
