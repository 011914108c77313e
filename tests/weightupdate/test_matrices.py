"""The affine rung's matrices beside fine-tuning's, against Jacobians of plain transformers' attention by autograd."""

from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from exactness import make_trainer
from ladder_oracle import expand, see
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.data.queries import collate
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.weightupdate._probe import WeightUpdateProbe

RATE = 0.05


@pytest.mark.parametrize("variant", ["gpt2", "llama", "bloom"])
def test_they_are_jacobians_of_attention(variant: str, tmp_path: Path) -> None:
    model, data = tiny_model(variant, dtype=torch.float64), tiny_data(tmp_path)
    chosen, held_out = data.demonstrations, data.held_out(2, [data.demonstrations])
    probe = WeightUpdateProbe(model, chosen, [collate(held_out)], 3)
    make_trainer(KVFinetuning(RATE), precision="64-true").fit(probe, datamodule=data)
    make_trainer(precision="64-true").validate(probe, datamodule=data, verbose=False)
    tuned = oracle.fine_tune(model, chosen, RATE).model
    ids, bos = list(chosen.prefix_token_ids), len(chosen.bos)
    expansions = expand(model, [query.prompt_ids for query in held_out], ids, bos, every_token=False)
    shift = 0 if variant != "llama" else len(ids) - bos
    figures = probe.matrix_figures()
    for layer in range(3):
        for head in range(4):
            point, changes = expansions.point[layer][head], []
            for query in held_out:
                prompt = [*chosen.bos, *query.prompt_ids]
                jacobians = []
                for view in (tuned, model):
                    seen = see(view, prompt, shift=shift).layers[layer]
                    tokens = range(len(prompt))
                    attend = lambda q, seen=seen, tokens=tokens: seen.attention(head, q, tokens)[0]  # noqa: E731, B023
                    jacobians.append(torch.autograd.functional.jacobian(attend, point))
                changes.append((jacobians[0] - jacobians[1]).numpy())
            learnt, shown = np.mean(changes, 0), expansions.derivatives[layer][head][1][:-1].numpy()
            found = probe.finetuned_matrices[layer][head].numpy()
            assert np.linalg.norm(found - learnt) < 1e-5 * np.linalg.norm(learnt)
            cosine = (learnt * shown).sum() / np.linalg.norm(learnt) / np.linalg.norm(shown)
            assert figures["cosine"][layer][head] == pytest.approx(cosine, abs=1e-5)
            ratio = np.linalg.norm(learnt) / np.linalg.norm(shown)
            assert figures["norm_ratio"][layer][head] == pytest.approx(ratio, rel=1e-4)
