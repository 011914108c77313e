"""The updates as matrices and their shares, against Jacobians of plain transformers' attention by autograd."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import plain_passes
import pytest
import torch
from exactness import make_trainer
from ladder_oracle import Expansions, expand, see
from tiny_models import tiny_model
from tiny_task import tiny_data
from torch import Tensor
from transformers import PreTrainedModel

from lightning_icl.comparison.controls.catalogue import choose
from lightning_icl.comparison.controls.run import contrasts_of
from lightning_icl.comparison.plan import PlannedTask
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import Query, collate
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.records import Demonstrations
from lightning_icl.weightupdate._matrices import Matrices
from lightning_icl.weightupdate._probe import WeightUpdateProbe

RATE, LAYERS, HEADS = 0.05, 3, 4
VARIANTS = pytest.mark.parametrize("variant", ["gpt2", "llama", "bloom"])


def fitted(model: PreTrainedModel, data: ICLDataModule, demonstrations: Demonstrations | None = None):
    chosen = demonstrations or data.demonstrations
    probe = WeightUpdateProbe(model, chosen, [collate(data.held_out(2, [data.demonstrations]))], 3)
    make_trainer(KVFinetuning(RATE), precision="64-true").fit(probe, datamodule=data.teaching(chosen))
    return probe


def validated(probe: WeightUpdateProbe, data: ICLDataModule) -> WeightUpdateProbe:
    make_trainer(precision="64-true").validate(probe, datamodule=data, verbose=False)
    return probe


class Slow:
    """The same update by automatic differentiation, prompt by prompt."""

    def __init__(self, model: PreTrainedModel, data: ICLDataModule) -> None:
        self.model, self.chosen = model, data.demonstrations
        self.held_out: list[Query] = data.held_out(2, [self.chosen])
        self.ids, self.bos = list(self.chosen.prefix_token_ids), len(self.chosen.bos)
        self.shift = 0 if model.config.model_type != "llama" else len(self.ids) - self.bos
        prompts = [query.prompt_ids for query in self.held_out]
        self.expansions: Expansions = expand(model, prompts, self.ids, self.bos, every_token=False)

    def learnt(self, steps: int) -> Tensor:
        """(layer, head, width, width): mean Jacobian of zero-shot attention after some steps of fine-tuning."""
        taught = replace(self.chosen, examples=self.chosen.examples[:steps])
        tuned = plain_passes.fine_tune(self.model, taught, RATE).model
        return torch.stack([self._jacobians(tuned, query) for query in self.held_out]).mean(0)

    def _jacobians(self, model: PreTrainedModel, query: Query) -> Tensor:
        prompt = [*self.chosen.bos, *query.prompt_ids]
        layers, tokens = see(model, prompt, shift=self.shift).layers, range(len(prompt))
        rows = [
            torch.autograd.functional.jacobian(
                lambda q, layer=layers[number], head=head: layer.attention(head, q, tokens)[0],
                self.expansions.point[number][head],
            )
            for number in range(LAYERS)
            for head in range(HEADS)
        ]
        return torch.stack(rows).unflatten(0, (LAYERS, HEADS))

    def shown(self) -> Tensor:
        """(layer, head, width, width): the Jacobian of attention to the demonstrations."""
        rows = [[own[1][:-1] for own in of_layer] for of_layer in self.expansions.derivatives]
        return torch.stack([torch.stack(row) for row in rows])

    def parts(self) -> Tensor:
        """(demonstration, layer, head, width, width): what its tokens add to the centred sum, token by token."""
        seen = see(self.model, self.ids).layers
        parts = torch.zeros(len(self.chosen), *self.shown().shape, dtype=torch.float64)
        for number in range(LAYERS):
            layer, tokens = seen[number], range(self.bos, len(self.ids))
            for head in range(HEADS):
                weight = layer.scores(head, self.expansions.point[number][head], tokens).softmax(-1)
                value = sum(p * layer.value[head, j] for p, j in zip(weight, tokens, strict=True))
                key = sum(p * layer.key[head, j] for p, j in zip(weight, tokens, strict=True))
                example = 0
                for j in tokens:
                    outer = torch.outer(layer.value[head, j] - value, layer.key[head, j] - key)
                    parts[example, number, head] += layer.scaling * weight[j - self.bos] * outer
                    example += self.ids[j] in self.chosen.sep  # which closes a demonstration, and no text has it
        return parts


@VARIANTS
def test_they_are_jacobians_of_attention(variant: str, tmp_path: Path) -> None:
    model, data = tiny_model(variant, dtype=torch.float64), tiny_data(tmp_path)
    probe, slow = validated(fitted(model, data), data), Slow(model, data)
    learnt, shown = slow.learnt(len(data.demonstrations)) - slow.learnt(0), slow.shown()
    assert probe.matrices is not None
    torch.testing.assert_close(torch.stack(list(probe.matrices.icl)), shown, rtol=0, atol=1e-5 * float(shown.norm()))
    torch.testing.assert_close(torch.stack(list(probe.matrices.ft)), learnt, rtol=0, atol=1e-5 * float(learnt.norm()))
    figures = probe.matrices.figures()
    cosine = (learnt * shown).sum((2, 3)) / (learnt.norm(dim=(2, 3)) * shown.norm(dim=(2, 3)))
    torch.testing.assert_close(torch.tensor(figures["cosine"]).double(), cosine, rtol=0, atol=1e-5)
    ratio = learnt.norm(dim=(2, 3)) / shown.norm(dim=(2, 3))
    torch.testing.assert_close(torch.tensor(figures["norm_ratio"]).double(), ratio, rtol=1e-4, atol=0)


@pytest.mark.parametrize("variant", ["llama", "bloom"])
def test_shares_divide_each_update_over_the_demonstrations(variant: str, tmp_path: Path) -> None:
    model, data = tiny_model(variant, dtype=torch.float64), tiny_data(tmp_path)
    probe, slow = validated(fitted(model, data), data), Slow(model, data)
    after = [slow.learnt(steps) for steps in range(len(data.demonstrations) + 1)]
    expected = {
        "icl": slow.parts(),
        "ft": torch.stack([new - old for old, new in pairwise(after)]),
    }
    torch.testing.assert_close(expected["icl"].sum(0), slow.shown())
    for name, parts in expected.items():
        whole = parts.sum(0)
        share = (parts * whole).sum((2, 3, 4)) / whole.square().sum((1, 2, 3))
        of_layers = probe.shares[name]
        assert of_layers is not None
        torch.testing.assert_close(torch.stack(of_layers).double(), share.T, rtol=0, atol=1e-4)
        torch.testing.assert_close(share.sum(0), torch.ones(LAYERS, dtype=torch.float64))


def test_controls_are_the_same_updates_of_other_demonstrations_and_of_another_model(tmp_path: Path) -> None:
    model, data = tiny_model("llama", dtype=torch.float64), tiny_data(tmp_path)
    probe = fitted(model, data)
    planned = PlannedTask(name="tiny", task=data.task, data=data, learning_rate=RATE)
    settings = CompareSettings(model="tiny", accelerator="cpu", precision="64")
    made = contrasts_of(settings, planned, probe, choose("labels-flipped,untrained"))
    probe.also_compare([contrast for contrasts in made.contrasts.values() for contrast in contrasts])
    validated(probe, data)
    labels = [(label + 1) % 3 for label in data.demonstrations.labels]
    torch.manual_seed(data.demonstrations.seed)
    fresh = type(model)(model.config).double().eval()
    alone = {
        "labels-flipped": validated(fitted(model, data, data.relabelled(labels)), data),
        "untrained": validated(fitted(fresh, data), data),
    }
    for name, other in alone.items():
        assert other.matrices is not None
        own = probe.control_matrices[name]
        pairs = zip([*own.icl, *own.ft], [*other.matrices.icl, *other.matrices.ft], strict=True)
        assert all(float((one - two).norm()) < 1e-5 * float(two.norm()) for one, two in pairs), name


def test_a_control_stands_beside_the_main_updates() -> None:
    one, other = torch.eye(3)[None].double(), torch.ones(1, 3, 3).double()
    main, control = Matrices(icl=[one], ft=[other]), Matrices(icl=[other], ft=[-other])
    figures = control.beside(main)
    assert figures["cosine_with_icl"] == [[pytest.approx(3**-0.5)]]
    assert figures["cosine_with_ft"] == [[pytest.approx(-1)]]
    assert figures["cosine"] == [[pytest.approx(-1)]]
