"""What is zero up to rounding is undefined, query by query and layer by layer, and its reason is given."""

import math
from pathlib import Path

import pytest
import torch
from exactness import RATE, deviations, make_trainer
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.comparison.undefined import undefined, undefined_queries
from lightning_icl.probing.contrast import Contrast
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe

IN_REACH = "no demonstration is in reach"


@pytest.mark.parametrize("window", [1, 2, 4, 7])
@pytest.mark.parametrize(("variant", "probe_token"), [("mistral-window", "prompt"), ("gemma3_text", "answer")])
def test_narrow_windows_agree_with_the_oracle(variant: str, window: int, probe_token: str, tmp_path: Path) -> None:
    """Deeper layers reach further, so that some queries have a value where longer ones have none."""
    found = deviations(
        variant, probe_token, "single", tmp_path, changes={"sliding_window": window}, windows=[window] * 3
    )
    assert max(found.values()) < 1e-4, found


def compared(folder: Path, variant: str, dtype: torch.dtype, shots: int = 5, **changes: object) -> ICLProbe:
    data = tiny_data(folder, shots=shots)
    probe = ICLProbe(tiny_model(variant, **changes).to(dtype), data.demonstrations)
    precision = {torch.bfloat16: "bf16-true", torch.float64: "64-true"}.get(dtype, "32-true")
    trainer = make_trainer(KVFinetuning(RATE), precision=precision)
    trainer.fit(probe, datamodule=data)
    trainer.validate(probe, datamodule=data, verbose=False)
    return probe


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_layers_that_see_no_demonstration_have_no_value_and_say_why(dtype: torch.dtype, tmp_path: Path) -> None:
    """A window of 4 reaches 3, 6 and 9 tokens back; the seven queries have 5 to 13."""
    probe = compared(tmp_path, "mistral-window", dtype, sliding_window=4)
    assert probe.comparison is not None
    for form in (probe.comparison.sim_aou.normalised, probe.comparison.sim_aou.raw, probe.comparison.sim_aou.random):
        assert torch.isnan(form.per_layer).tolist() == [True, False, False]
        (unreached,) = [shares for reason, shares in form.undefined.items() if IN_REACH in reason]
        assert unreached.tolist() == pytest.approx([1, 5 / 7, 2 / 7])
    reasons = undefined(probe.comparison, probe.studied[0])
    assert IN_REACH in reasons["sim_aou.per_layer[0]"]
    assert "sim_aou.per_layer[1]" not in reasons
    partly = undefined_queries(probe.comparison)
    assert partly["sim_aou.per_layer[2]"]["share"] == pytest.approx(2 / 7, abs=1e-6)
    assert IN_REACH in partly["sim_aou.per_layer[2]"]["reason"]
    assert "within the probe token's reach" in reasons["kendall.value"]


def test_another_querys_update_is_undefined_where_that_query_had_none(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, batch_tokens=4096)
    probe = ICLProbe(tiny_model("mistral-window", sliding_window=4), data.demonstrations)
    trainer = make_trainer(KVFinetuning(RATE))
    trainer.fit(probe, datamodule=data)
    own = probe.studied[0]
    probe.also_compare(
        [
            Contrast(
                name="another",
                zsl=own.zsl,
                icl=own.icl,
                ft=own.icl,
                demonstrations=own.demonstrations,
                next_query=True,
            )
        ]
    )
    trainer.validate(probe, datamodule=data, verbose=False)
    form = probe.comparisons["another"].sim_aou.raw
    assert math.isnan(form.per_layer[0])
    assert float(sum(form.undefined.values())[1]) >= 5 / 7
    reasons = undefined(probe.comparisons["another"], probe.contrasts[0])
    assert reasons["sim_am.value"] == "only representations can be compared with another query's"


@pytest.mark.parametrize("variant", ["gpt2", "llama", "mistral-window", "qwen3", "bloom", "llama-momentum"])
def test_ordinary_models_keep_every_value(variant: str, tmp_path: Path) -> None:
    """Windows that some demonstration reaches through, and models without, have a value for every query."""
    probe = compared(tmp_path, variant, torch.float32)
    assert probe.comparison is not None
    aou, am = probe.comparison.sim_aou, probe.comparison.sim_am
    for form in (aou.normalised, aou.raw, aou.random, aou.raw_random):
        assert all(not shares.any() for shares in form.undefined.values())
    for form in (am.difference, am.softmax_difference):
        assert all(not shares[1:].any() for shares in form.undefined.values())
        assert (form.rounding[1:] < 0.01).all()


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_rounding_says_how_far_small_rates_are_off(variant: str, tmp_path: Path) -> None:
    """The estimate bounds what float32 is off by within a factor of three, and is negligible in float64."""
    data, found = tiny_data(tmp_path), {}
    for dtype, precision in ((torch.float32, "32-true"), (torch.float64, "64-true")):
        probe = ICLProbe(tiny_model(variant).to(dtype), data.demonstrations)
        trainer = make_trainer(KVFinetuning(1e-5), precision=precision)
        trainer.fit(probe, datamodule=data)
        trainer.validate(probe, datamodule=data, verbose=False)
        assert probe.comparison is not None
        found[dtype] = probe.comparison
    for level, name in (("sim_aou", "normalised"), ("sim_aou", "raw"), ("sim_am", "softmax_difference")):
        narrow, wide = (getattr(getattr(found[dtype], level), name) for dtype in (torch.float32, torch.float64))
        error = (narrow.per_layer - wide.per_layer).abs().nan_to_num(0)
        assert (error <= 3 * narrow.rounding.nan_to_num(0)).all(), (error, narrow.rounding)
        assert narrow.rounding.nanmean() > 1e-4
        assert wide.rounding.nanmean() < 1e-5
