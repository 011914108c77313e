"""Every rung in real models against plain transformers, one query at a time, derivatives by autograd."""

from pathlib import Path

import pytest
import torch
from ladder_oracle import expand, see
from tiny_models import VARIANTS, tiny_model
from tiny_task import tiny_data
from torch import Tensor, nn

from lightning_icl.data.module import ICLDataModule
from lightning_icl.data.queries import collate
from lightning_icl.errors import ModelError
from lightning_icl.models.capture import Capture
from lightning_icl.models.replacement import Updated
from lightning_icl.models.scope import Scope
from lightning_icl.weightupdate.ladder_observation import LadderObservation, observe_condition
from lightning_icl.weightupdate.survey import Survey

RUNGS = ("none", "linear-raw", "linear", "constant", "constant-mass", "affine", "quadratic", "softmax")
WINDOWED = ("mistral-window", "mistral-window-momentum", "gemma2", "gemma3_text", "cohere2", "gpt_neo")


def model_of(variant: str, monkeypatch: pytest.MonkeyPatch, window: int = 200) -> nn.Module:
    """A tiny model in float64, whose windows hold the whole prompt."""
    model_type, settings = VARIANTS[variant]
    for name in ("sliding_window", "window_size"):
        if name in settings:
            settings = {**settings, name: window}
    monkeypatch.setitem(VARIANTS, variant, (model_type, settings))
    # XGLM's eager attention in transformers overflows in float64.
    model = tiny_model(variant, dtype=torch.float32 if variant == "xglm" else torch.float64)
    if variant == "falcon-alibi":  # the eager path of transformers adds the bias twice; its SDPA path is right
        model.config._attn_implementation = "sdpa"
    return model


def seen_by_rungs(model: nn.Module, data: ICLDataModule, scope: Scope) -> dict[str, LadderObservation]:
    chosen, batch = data.demonstrations, collate(data.queries)
    with Capture(model) as capture:
        prefix = capture.prefix(chosen.prefix_token_ids)
        held_out = [collate([query]) for query in data.held_out(2, [chosen])]
        survey = Survey(len(prefix.keys), len(chosen.bos), scope).of(capture, prefix, held_out)
        return {
            name: observe_condition(
                capture, batch, prefix, name=name, replacement=Updated(updates, len(chosen.bos), scope)
            )
            for name, updates in survey.rungs().items()
        }


def check(variant: str, scope: Scope, model: nn.Module, data: ICLDataModule, queries: int) -> None:
    chosen = data.demonstrations
    ids, bos, prefix = list(chosen.prefix_token_ids), len(chosen.bos), len(chosen.prefix_token_ids)
    expansions = expand(
        model, [query.prompt_ids for query in data.held_out(2, [chosen])], ids, bos, every_token=scope == "query"
    )
    found = seen_by_rungs(model, data, scope)
    assert tuple(found) == RUNGS
    for row, query in enumerate(data.queries[:queries]):
        whole = [*ids, *query.prompt_ids]
        for rung, seen in found.items():
            rungs = dict.fromkeys(range(prefix, len(whole)), rung if scope == "query" else "none")
            rungs = rungs if scope != "probe" else {}
            expected = see(model, whole, rungs | {len(whole) - 1: rung}, expansions, bos, prefix)
            assert error(seen.logits[row], expected.logits) < 1e-5, rung
            for layer, output in enumerate(expected.outputs):
                assert error(seen.outputs[row, layer], output) < 1e-5, (rung, layer)
        if scope != "alone":
            assert error(found["softmax"].logits[row], see(model, whole).logits) < 1e-5


def error(found: Tensor, expected: Tensor) -> float:
    """Relative, since norms in float32, which some families have in any model, are no more exact."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_rung_at_the_probe_token_equals_a_slow_computation(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(variant, "probe", model_of(variant, monkeypatch), tiny_data(tmp_path), queries=1)


@pytest.mark.parametrize("scope", ["query", "alone"])
@pytest.mark.parametrize("variant", ["gpt2", "llama-momentum", "gemma2", "bloom", "falcon-multiquery"])
def test_every_rung_at_all_own_tokens_equals_a_slow_computation(
    variant: str, scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(variant, scope, model_of(variant, monkeypatch), tiny_data(tmp_path), queries=1)


@pytest.mark.parametrize("variant", WINDOWED)
def test_a_window_that_cuts_the_demonstrations_is_refused(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="sees the last 20 tokens only"):
        seen_by_rungs(model_of(variant, monkeypatch, window=20), tiny_data(tmp_path), "probe")


@pytest.mark.parametrize("variant", ["gpt2", "llama", "bloom"])
def test_about_the_query_itself_rungs_are_in_context_learning(variant: str, tmp_path: Path) -> None:
    """The bound that the other source of the expansion point gives: it holds layer by layer, hence in the model."""
    model, data = tiny_model(variant, dtype=torch.float64), tiny_data(tmp_path)
    chosen, batch = data.demonstrations, collate(data.queries[:1])
    with Capture(model) as capture:
        prefix = capture.prefix(chosen.prefix_token_ids)
        rungs = Survey(3, len(chosen.bos), "probe").of(capture, prefix, [batch]).rungs()
        icl = observe_condition(capture, batch, prefix, name="icl")
        for name in ("constant", "constant-mass", "affine", "quadratic"):
            updated = Updated(rungs[name], len(chosen.bos), "probe")
            rung = observe_condition(capture, batch, prefix, name=name, replacement=updated)
            assert error(rung.logits, icl.logits) < 1e-9, name
