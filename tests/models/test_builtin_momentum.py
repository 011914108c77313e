"""The built-in momentum model: icl-tiny's shape, tokenizer and training, with momentum attention from step one on."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_icl import compare
from lightning_icl.models.finding import BUILTIN, find_model
from lightning_icl.models.loading import load_model, load_tokenizer
from lightning_icl.models.momentum.conversion import from_momentum
from lightning_icl.models.momentum.settings import has_momentum
from lightning_icl.pretraining._blocks import Documents
from lightning_icl.pretraining.settings import PretrainSettings

FOLDER = Path(__file__).parents[2] / "checkpoints" / BUILTIN["builtin-momentum"]
pytestmark = pytest.mark.skipif(
    not (FOLDER / "model.safetensors").is_file(), reason=f"{FOLDER.name} holds no weights: it has not been trained yet"
)


def test_it_is_the_built_in_model_but_for_eta_and_training() -> None:
    plain, momentum = (load_model(find_model(name)) for name in BUILTIN)
    assert has_momentum(momentum)
    shapes = {name: value.shape for name, value in momentum.named_parameters() if not name.endswith("momentum_logit")}
    assert shapes == {name: value.shape for name, value in plain.named_parameters()}
    vocabularies = [load_tokenizer(find_model(name)).get_vocab() for name in BUILTIN]
    assert vocabularies[0] == vocabularies[1]


def test_every_head_has_learnt_its_eta() -> None:
    model = load_model(find_model("builtin-momentum"))
    found = [value.sigmoid() for name, value in model.named_parameters() if name.endswith("momentum_logit")]
    eta = torch.stack(found)
    assert eta.shape == (4, 6)
    assert ((eta > 0) & (eta < 1) & ((eta - 0.9).abs() > 0.01)).all()


def test_its_weights_have_learnt_to_work_with_momentum() -> None:
    settings = PretrainSettings(out="unused", seed=3)
    documents = Documents(settings, load_tokenizer(find_model("builtin-momentum")))
    ids = torch.stack([documents[number][0] for number in range(4)])
    model = load_model(find_model("builtin-momentum"))

    def loss() -> float:
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        return float(cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))

    learnt = loss()
    from_momentum(model)
    # Without the moving average it is another model, and a bad one.
    assert learnt + 1 < loss()


@pytest.mark.parametrize("task", ["tiny-mr", "tiny-agnews"])
def test_it_reads_examples_and_learns_from_single_steps_on_them(task: str) -> None:
    results = compare("builtin-momentum", task, limit=64)[task]
    zsl, icl, ft = (results["accuracy"][condition] for condition in ("zsl", "icl", "ft"))
    assert icl >= zsl + 0.15
    assert ft >= zsl + 0.15
    losses = results["finetune"]["loss"]
    assert sum(losses[-8:]) < sum(losses[:8])
