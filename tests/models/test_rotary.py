"""Rotary scaling that changes with length: one set of angles for each whole sequence, as plain transformers has it."""

from pathlib import Path

import pytest
import torch
from exactness import deviations
from tiny_models import tiny_model
from tiny_task import tiny_data
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lightning_icl.data.queries import collate
from lightning_icl.errors import ModelError
from lightning_icl.models.capture import Capture
from lightning_icl.models.rotary import length_scaling
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition

# The tests' prompt has 58 tokens before the query and up to 74 with it; zero-shot queries have at most 16.
BELOW, BETWEEN, ABOVE = 40, 64, 90


def longrope(length: int) -> dict[str, object]:
    half = 4
    return {
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": length,
        "short_factor": [1.0 + 0.1 * place for place in range(half)],
        "long_factor": [3.0 + place for place in range(half)], "factor": 4.0,
    }  # fmt: skip


def changes(variant: str, length: int) -> dict[str, object]:
    own = {"original_max_position_embeddings": length} if variant == "phi3" else {}
    return {"rope_parameters": longrope(length), **own}


OTHERS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("batch_tokens", [16, 4096])
@pytest.mark.parametrize("length", [BELOW, ABOVE])
@pytest.mark.parametrize("variant", ["phi3", "llama"])
def test_long_rope_equals_the_oracle_on_either_side_of_its_length(
    variant: str, length: int, batch_tokens: int, tmp_path: Path
) -> None:
    """Zero-shot queries are always short ones; the prompt is all short or all long."""
    found = deviations(
        variant, "prompt", "multi", tmp_path, changes=changes(variant, length), batch_tokens=batch_tokens
    )
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("variant", ["phi3", "llama"])
def test_long_rope_is_refused_where_queries_lie_on_both_sides(variant: str, tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    model = tiny_model(variant, **changes(variant, BETWEEN))
    with Capture(model) as capture:
        view = View.prepare(capture, Condition.in_context(data.demonstrations))
        with pytest.raises(ModelError, match=f"'longrope' changes its angles beyond {BETWEEN} tokens"):
            view.observe(capture, collate(data.queries))


@pytest.mark.parametrize("variant", ["llama", "falcon-multiquery"])
def test_dynamic_scaling_is_that_of_short_sequences_within_the_context_and_refused_beyond(
    variant: str, tmp_path: Path
) -> None:
    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert max(deviations(variant, "prompt", "single", tmp_path, changes={"rope_parameters": scaling}).values()) < 1e-4
    data = tiny_data(tmp_path)
    model = tiny_model(variant, rope_parameters=scaling, max_position_embeddings=BETWEEN)
    with Capture(model) as capture:
        view = View.prepare(capture, Condition.in_context(data.demonstrations))
        with pytest.raises(ModelError, match="'dynamic' changes its angles"):
            view.observe(capture, collate(data.queries))


@pytest.mark.parametrize("kind", OTHERS)
def test_scaling_that_is_the_same_at_every_length_equals_the_oracle(kind: str, tmp_path: Path) -> None:
    scaling = {"rope_theta": 10000.0, **OTHERS[kind]}
    found = deviations("llama", "prompt", "single", tmp_path, changes={"rope_parameters": scaling})
    assert max(found.values()) < 1e-4, found


def test_every_kind_of_scaling_in_transformers_has_been_looked_at() -> None:
    assert set(ROPE_INIT_FUNCTIONS) == {*OTHERS, "dynamic", "longrope"}


def test_layers_with_scalings_of_their_own_go_by_the_shortest() -> None:
    config = tiny_model("gemma3_text").config
    assert length_scaling(config) is None
    config.rope_parameters = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    }
    scaling = length_scaling(config)
    assert scaling is not None
    assert (scaling.kind, scaling.length) == ("dynamic", 256)


def test_angles_of_a_long_prompt_do_not_stay_for_a_short_one(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    model = tiny_model("phi3", **changes("phi3", BELOW))
    batch = collate(data.queries)
    with Capture(model) as capture:
        zero_shot = View.prepare(capture, Condition.zero_shot(data.demonstrations))
        before = zero_shot.observe(capture, batch).answer_scores
        View.prepare(capture, Condition.in_context(data.demonstrations)).observe(capture, batch)
        assert torch.equal(zero_shot.observe(capture, batch).answer_scores, before)
