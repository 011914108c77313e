"""One fine-tuning by itself, which those that take their steps together must come to as well."""

import pytest
import torch
from exactness import make_trainer
from transformers import PreTrainedModel

from lightning_icl.models.kv import Trained
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.finetuning_run import Finetuned, FinetuningRun
from lightning_icl.probing.group import group_steps
from lightning_icl.probing.module import FinetunedModule

PRECISIONS = {torch.float32: "32-true", torch.float64: "64-true", torch.bfloat16: "bf16-true"}


def alone(model: PreTrainedModel, run: FinetuningRun, trained: Trained = "kv") -> Finetuned:
    module = FinetunedModule(model, run.demonstrations)
    trainer = make_trainer(KVFinetuning(run.learning_rate, trained), precision=PRECISIONS[model.dtype])
    trainer.fit(module, group_steps([run]))
    assert module.finetuned is not None
    return module.finetuned


def assert_near(one: Finetuned, other: Finetuned, tolerance: float) -> None:
    assert one.overlay.tensors.keys() == other.overlay.tensors.keys()
    near = {"rtol": tolerance, "atol": tolerance}
    for name, tensor in one.overlay.tensors.items():
        torch.testing.assert_close(tensor, other.overlay.tensors[name], **near)
    assert one.training_queries is not None
    torch.testing.assert_close(one.training_queries, other.training_queries, **near)
    assert one.losses == pytest.approx(other.losses, rel=tolerance, abs=tolerance)
    assert one.update_norms == pytest.approx(other.update_norms, rel=10 * tolerance)
    assert one.learning_rate == other.learning_rate
