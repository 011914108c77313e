"""The dual form of real models against plain transformers, eager attention, one query at a time, float64 loops."""

import copy
from collections import defaultdict
from pathlib import Path

import numpy as np
import plain_passes
import pytest
import torch
from dual_oracle import Heads, cos, error, look_at_heads, matrix
from exactness import make_trainer, windows_of
from scipy.linalg import subspace_angles
from tiny_models import VARIANTS, tiny_model
from tiny_task import tiny_data
from torch import nn
from transformers.pytorch_utils import Conv1D

from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import budget_batches, collate
from lightning_icl.dualform._capture import DualCapture
from lightning_icl.dualform._implicit_patch import implicit_patch
from lightning_icl.dualform._outer_products import apply_matrix, token_sums
from lightning_icl.dualform._probe import DualProbe
from lightning_icl.probing.finetuning import KVFinetuning

RATE, RANK, LAYERS = 0.05, 3, (0, 1, 2)


def model_of(variant: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    if variant == "xglm":  # its eager attention in transformers overflows in float64
        dtype = torch.float32
    model = tiny_model(variant, dtype=dtype)
    if variant == "falcon-alibi":  # the eager path of transformers adds the bias twice; its SDPA path is right
        model.config._attn_implementation = "sdpa"
    return model


def fitted(model: nn.Module, data: ICLDataModule) -> DualProbe:
    probe = DualProbe(model, data.demonstrations, LAYERS, RANK)
    make_trainer(KVFinetuning(RATE)).fit(probe, datamodule=data)
    make_trainer().validate(probe, datamodule=data, verbose=False)
    return probe


@pytest.mark.parametrize("probe_token", ["prompt", "answer"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_matrix_of_a_head_is_its_linear_attention(variant: str, probe_token: str, tmp_path: Path) -> None:
    """(W_ZSL + ΔW_ICL) q from the program against Σ_j v_j s_j with scores and values of plain transformers, to 1e-5."""
    model, answers = model_of(variant, torch.float64), "multi" if probe_token == "answer" else "single"
    data = tiny_data(tmp_path, answers, probe_token=probe_token)
    prefix, bos = data.demonstrations.prefix_token_ids, len(data.demonstrations.bos)
    with DualCapture(model, LAYERS) as capture:
        shared = capture.prefix_at(prefix, 0)
        views = capture.view(collate(data.queries), shared, 0)
    windows = windows_of(variant, len(LAYERS))
    for row, query in enumerate(data.queries):
        sequence = plain_passes.probe_sequence(prefix, query)
        slow, own = look_at_heads(model, sequence), len(sequence) - len(prefix)
        for layer in LAYERS:
            view, window = views[layer], windows[layer] or len(sequence)
            seen = torch.arange(len(sequence)) > len(sequence) - 1 - window
            demonstrations = token_sums(
                shared.keys[layer][:, :, bos:], shared.values[layer][:, :, bos:], seen[None, bos : len(prefix)]
            )
            first = token_sums(shared.keys[layer][:, :, :bos], shared.values[layer][:, :, :bos], seen[None, :bos])
            itself = token_sums(view.key[[row], :, :own], view.value[[row], :, :own], seen[None, len(prefix) :])
            both = (first + itself + demonstrations).outer
            found = (view.scaling * apply_matrix(both, view.query[[row]]))[0].numpy()
            scores = np.einsum("htd,hd->ht", slow.key[layer], slow.query[layer]) * slow.scaling[layer] * seen.numpy()
            expected = np.einsum("ht,htd->hd", scores, slow.value[layer])
            assert max(map(error, found, expected)) < 1e-5
            assert max(map(error, view.output[row].numpy(), slow.output[layer])) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_identities_hold_in_single_precision(variant: str, tmp_path: Path) -> None:
    """What the command reports, on every architecture; a soft cap or position bias is no part of the linear form."""
    probe = fitted(model_of(variant), tiny_data(tmp_path))
    assert probe.figures["identity_error"].max() < 1e-5
    assert probe.figures["patch_identity_error"].max() < 1e-5
    shares = probe.figures["share_projection"].sum(-1)
    torch.testing.assert_close(shares, torch.ones_like(shares))
    assert probe.queries == 7


def test_half_precision_weights_are_measured_in_single_precision(tmp_path: Path) -> None:
    whole, half = (fitted(model_of("llama", dtype), tiny_data(tmp_path)) for dtype in (torch.float32, torch.bfloat16))
    assert half.figures["identity_error"].max() < 1e-5
    for name in ("linear_cosine", "zsl_icl_cosine", "share_norm"):
        torch.testing.assert_close(half.figures[name], whole.figures[name], rtol=0, atol=0.1)


@pytest.mark.parametrize(
    "variant", ["gpt2", "llama", "mistral-window", "xglm", "falcon-grouped", "qwen3", "llama-momentum"]
)
def test_every_figure_equals_a_loop(variant: str, tmp_path: Path) -> None:
    model, data = model_of(variant, torch.float64), tiny_data(tmp_path)
    probe = fitted(model, data)
    tuned = plain_passes.fine_tune(model, data.demonstrations, RATE).model
    chosen, groups = data.demonstrations, model.config.num_attention_heads // probe.figures["cosine"].shape[1]
    bos, prefix = len(chosen.bos), chosen.prefix_token_ids
    shift = 0 if variant in ("gpt2", "xglm") else len(prefix) - bos
    windows = windows_of(variant, len(LAYERS))
    values: dict[str, list] = defaultdict(list)
    for query in data.queries:
        zsl = look_at_heads(model, plain_passes.probe_sequence(chosen.bos, query), shift)
        ft = look_at_heads(tuned, plain_passes.probe_sequence(chosen.bos, query), shift)
        icl = look_at_heads(model, plain_passes.probe_sequence(prefix, query))
        rows: dict[str, list] = defaultdict(list)
        for layer in LAYERS:
            cells: dict[str, list] = defaultdict(list)
            for head in range(model.config.num_attention_heads):
                for name, value in one_head(
                    zsl, icl, ft, layer, head, windows[layer], bos, len(prefix), probe.demonstrations.token_owner
                ).items():
                    cells[name].append(value)
            for name, cell in cells.items():
                rows[name].append(cell)
        for name, row in rows.items():
            values[name].append(row)
    for name, value in values.items():
        expected, found = np.nanmean(np.array(value), 0), probe.figures[name].numpy()
        if found.shape[1] != expected.shape[1]:  # one value for a group of heads
            expected = expected[:, ::groups]
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5, err_msg=name)


def one_head(
    zsl: Heads,
    icl: Heads,
    ft: Heads,
    layer: int,
    head: int,
    window: int | None,
    bos: int,
    prefix: int,
    owner: list[int],
) -> dict[str, float | list[float]]:
    """Every figure of one head for one query, by its formula."""
    length, bare = icl.key[layer].shape[1], zsl.key[layer].shape[1]
    visible = range(max(0, length - (window or length)), length)
    w_zsl, w_ft = (matrix(view, layer, head, range(max(0, bare - (window or bare)), bare)) for view in (zsl, ft))
    shown = [token for token in visible if bos <= token < prefix]
    d_icl, d_ft = matrix(icl, layer, head, shown), w_ft - w_zsl
    own = matrix(icl, layer, head, [token for token in visible if token not in shown])
    query, output = icl.query[layer][head], icl.output[layer][head]
    scores = icl.key[layer][head][list(visible)] @ query * icl.scaling[layer]
    linear = icl.scaling[layer] * (own + d_icl) @ query
    first_order = (1 + scores - scores.mean()) / len(scores) @ icl.value[layer][head][list(visible)]
    (ui, si, vi), (uf, sf, vf) = np.linalg.svd(d_icl), np.linalg.svd(d_ft)
    left, right = (np.sort(subspace_angles(a[:, :RANK], b[:, :RANK])) for a, b in ((ui, uf), (vi.T, vf.T)))
    parts = [
        matrix(icl, layer, head, [t for t in shown if owner[t - bos] == number]) for number in range(max(owner) + 1)
    ]
    entropy = lambda s: float(np.exp(-(s / s.sum() * np.log(s / s.sum() + 1e-300)).sum()))  # noqa: E731
    return {
        "linear_error": error(linear, output),
        "linear_error_without_scale": error(linear / icl.scaling[layer], output),
        "linear_cosine": cos(linear, output),
        "first_order_error": error(first_order, output),
        "first_order_cosine": cos(first_order, output),
        "update_cosine": cos(d_icl @ query, output - zsl.output[layer][head]),
        "effect_cosine": cos(d_icl @ query, d_ft @ query),
        "cosine": cos(d_icl, d_ft),
        "norm_ratio": np.linalg.norm(d_ft) / np.linalg.norm(d_icl),
        "left_overlap": float((np.cos(left) ** 2).mean()),
        "right_overlap": float((np.cos(right) ** 2).mean()),
        "icl_rank": entropy(si),
        "ft_rank": entropy(sf),
        "zsl_icl_cosine": cos(w_zsl, d_icl),
        "zsl_ft_cosine": cos(w_zsl, d_ft),
        "own_drift": np.linalg.norm(own - w_zsl) / np.linalg.norm(w_zsl),
        "share_projection": [float((part * d_icl).sum() / (d_icl**2).sum()) for part in parts],
        "share_norm": [float(np.linalg.norm(part) / np.linalg.norm(d_icl)) for part in parts],
    }


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_the_patched_mlp_reads_the_bare_query_as_the_mlp_reads_it_in_context(variant: str, tmp_path: Path) -> None:
    """The patch is written into the model's own first MLP module, which then runs; hooks of ours see its inputs."""
    model, data = model_of(variant, torch.float64), tiny_data(tmp_path)
    chosen, query = data.demonstrations, data.queries[0]
    bare, full = (
        look_at_heads(model, plain_passes.probe_sequence(prefix, query)).mlp
        for prefix in (chosen.bos, chosen.prefix_token_ids)
    )
    with DualCapture(model, LAYERS) as capture:
        zsl, icl = (
            capture.view(collate([query]), capture.prefix_at(prefix, 0), 0)
            for prefix in (chosen.bos, chosen.prefix_token_ids)
        )
    for layer in LAYERS:
        module, weight = bare[layer][0], capture.first_mlp_matrix(layer)
        a, a_c = zsl[layer].mlp_input.clone(), icl[layer].mlp_input.clone()
        np.testing.assert_allclose(a[0].numpy(), bare[layer][1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a_c[0].numpy(), full[layer][1], rtol=1e-5, atol=1e-6)
        patched = copy.deepcopy(module)
        patch = implicit_patch(weight, a, a_c)[0, : module(a).shape[1]]  # of a gated MLP the gate stands first
        patched.weight += patch.mT if isinstance(module, Conv1D) else patch
        torch.testing.assert_close(patched(a), module(a_c), rtol=0, atol=1e-5 if variant == "xglm" else 1e-10)


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_patches_are_compared_as_hooks_of_ours_see_them(variant: str, tmp_path: Path) -> None:
    model, data = model_of(variant, torch.float64), tiny_data(tmp_path)
    probe, tuned = fitted(model, data), plain_passes.fine_tune(model, data.demonstrations, RATE).model
    bos, prefix = data.demonstrations.bos, data.demonstrations.prefix_token_ids
    order = [query for batch in budget_batches(data.queries, data.batch_tokens) for query in batch]
    for layer in LAYERS:
        same, other, before = [], [], None
        for query in order:
            (module, a), (_, a_c), (_, a_ft) = (
                look_at_heads(view, plain_passes.probe_sequence(tokens, query)).mlp[layer]
                for view, tokens in ((model, bos), (model, prefix), (tuned, bos))
            )
            weight = module.weight.detach().mT if isinstance(module, Conv1D) else module.weight.detach()
            if variant == "llama":
                weight = torch.cat([weight, model.model.layers[layer].mlp.up_proj.weight.detach()])
            icl, ft = weight.numpy() @ (a_c - a), weight.numpy() @ (a_ft - a)
            same.append(cos(np.outer(icl, a), np.outer(ft, a)))
            other.append(np.nan if before is None else cos(icl, before))
            before = ft
        assert float(probe.figures["patch_cosine"][layer]) == pytest.approx(np.mean(same), abs=1e-5)
        assert float(probe.figures["patch_other_cosine"][layer]) == pytest.approx(np.nanmean(other), abs=1e-5)


@pytest.mark.parametrize("variant", ["llama", "mistral-window", "gptj", "bloom", "phi"])
def test_moving_all_tokens_alike_changes_the_frame_alone(variant: str, tmp_path: Path) -> None:
    model, data = model_of(variant, torch.float64), tiny_data(tmp_path)
    batch = collate(data.queries)
    with DualCapture(model, LAYERS) as capture:
        still, moved = (
            capture.view(batch, capture.prefix_at(data.demonstrations.bos, shift), shift) for shift in (0, 50)
        )
    for layer in LAYERS:
        torch.testing.assert_close(moved[layer].output, still[layer].output, rtol=0, atol=1e-6)
        turned = (moved[layer].key - still[layer].key).abs().max() > 1e-3
        assert turned == (variant != "bloom")


def test_batches_do_not_matter(tmp_path: Path) -> None:
    one, many = (
        fitted(model_of("mistral-window", torch.float64), tiny_data(tmp_path, batch_tokens=size)).figures
        for size in (16, 1000)
    )
    for name, values in one.items():
        torch.testing.assert_close(values, many[name], rtol=1e-6, atol=1e-9, equal_nan=True, msg=name)
