"""Figures that cannot be what they seem: a null has its reason, and a value is one that arithmetic can stand for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from exactness import make_trainer
from outside_case import Case, check_case
from tiny_folders import SETTINGS, changed_config, model_folder
from tiny_models import tiny_model
from tiny_task import tiny_data
from torch import nn

from lightning_icl.comparison.assemble import plain_comparison
from lightning_icl.comparison.undefined import rounding, undefined, undefined_queries
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe

REACH = "within the probe token's reach"
LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64, "factor": 4.0,
    "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One row of the table: a tiny model, its demonstrations and fine-tuning, and what becomes of the figures."""

    situation: str
    variant: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the model's configuration."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the data."""
    rate: float = 0.05
    precision: str = "32-true"
    without: Sequence[str] = ()
    """Parameters, by a part of their names, that are set to zero."""
    null: Mapping[str, str] = field(default_factory=dict)
    """By dotted key of what is null, words of its reason."""
    value: Sequence[str] = ()
    """Dotted keys of what has a value."""
    partly: Mapping[str, str] = field(default_factory=dict)
    """By dotted key of a layer, words of the reason why some of the queries have no value."""
    rounding: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By dotted key, between which numbers lies what rounding may do."""


SITUATIONS = [
    Situation(
        situation="a window shorter than every query",
        variant="mistral-window",
        changes={"sliding_window": 2},
        null={
            "sim_aou.value": "no demonstration is in reach",
            "sim_aou.raw": "no demonstration is in reach",
            "sim_aou.random": "no demonstration is in reach",
            "kendall.value": REACH,
            "kendall.example": REACH,
            "kendall.top_tokens": "no more than 100 demonstration tokens",
        },
        value=["sim_am.value", "kendall.visible"],
    ),
    Situation(
        situation="a window that deeper layers see through",
        variant="mistral-window",
        changes={"sliding_window": 4},
        null={"sim_aou.per_layer[0]": "no demonstration is in reach", "kendall.value": REACH},
        value=["sim_aou.value", "sim_aou.raw"],
        partly={"sim_aou.per_layer[1]": "no demonstration is in reach"},
    ),
    Situation(
        situation="a window of one token, which nothing passes",
        variant="mistral-window",
        changes={"sliding_window": 1},
        null={"sim_aou.value": "no demonstration", "sim_am.difference": "no more than rounding"},
        value=["sim_am.value"],
    ),
    Situation(
        situation="a window under float64",
        variant="mistral-window",
        changes={"sliding_window": 2},
        precision="64-true",
        null={"sim_aou.value": "no demonstration is in reach", "sim_aou.raw_random": "no demonstration"},
    ),
    Situation(
        situation="a window under bfloat16",
        variant="mistral-window",
        changes={"sliding_window": 2},
        precision="bf16-true",
        null={"sim_aou.value": "no demonstration is in reach", "sim_aou.raw_random": "no demonstration"},
    ),
    Situation(
        situation="windows on some layers alone",
        variant="gemma2",
        changes={"sliding_window": 3},
        null={"sim_aou.per_layer[0]": "no demonstration is in reach"},
        value=["sim_aou.value", "kendall.value"],
    ),
    Situation(
        situation="a window with momentum, whose average has no end",
        variant="mistral-window-momentum",
        changes={"sliding_window": 2},
        value=["sim_aou.value", "sim_aou.per_layer[0]"],
        null={"kendall.value": REACH},
    ),
    Situation(
        situation="absolute positions, which move the first layer too",
        variant="gpt_neo",
        changes={"window_size": 2},
        value=["sim_aou.per_layer[0]", "sim_am.difference_per_layer[0]"],
    ),
    Situation(
        situation="a rate that moves no weight",
        variant="llama",
        rate=1e-12,
        null={"sim_aou.value": "fine-tuning moved", "sim_am.difference": "fine-tuning moved"},
        value=["sim_aou.random", "sim_am.zsl", "kendall.value"],
    ),
    Situation(
        situation="the same rate under float64",
        variant="gpt2",
        rate=1e-12,
        precision="64-true",
        value=["sim_aou.value", "sim_am.difference"],
        rounding={"sim_aou.raw": (1e-9, 1e-2)},
    ),
    Situation(
        situation="a rate whose updates float32 barely holds",
        variant="gpt2",
        rate=1e-6,
        value=["sim_aou.value"],
        rounding={"sim_aou.raw": (1e-3, 1e-1), "sim_am.difference": (1e-3, 1)},
    ),
    Situation(
        situation="an ordinary rate",
        variant="gpt2",
        value=["sim_aou.value", "sim_am.difference"],
        rounding={"sim_aou.raw": (0, 1e-4), "sim_am.difference": (0, 1e-3)},
    ),
    Situation(
        situation="the first layer of relative positions",
        variant="llama",
        null={
            "sim_am.difference_per_layer[0]": "cannot depend on the prompt",
            "sim_am.softmax_difference_per_layer[0]": "cannot depend on the prompt",
        },
        value=["sim_am.difference", "sim_am.per_layer[0]"],
    ),
    Situation(
        situation="keys that are all alike",
        variant="llama",
        without=["k_proj"],
        rate=1e-9,
        null={"kendall.value": "no more than rounding", "kendall.example_per_layer[0]": "no more than rounding"},
    ),
    Situation(
        situation="values that are all alike",
        variant="llama",
        without=["o_proj"],
        null={"sim_aou.value": "no more than rounding"},
    ),
    Situation(
        situation="as many demonstrations as are asked for in a top list",
        variant="gpt2",
        null={
            "kendall.top_examples": "the prompt has no more than 5 demonstrations",
            "kendall.top_tokens": "the prompt has no more than 100 demonstration tokens",
        },
        value=["kendall.value", "kendall.example"],
    ),
    Situation(
        situation="more demonstrations than a top list",
        variant="gpt2",
        data={"shots": 9},
        value=["kendall.top_examples"],
    ),
    Situation(
        situation="one demonstration, which has no order",
        variant="gpt2",
        data={"shots": 1},
        null={"kendall.example": REACH, "kendall.example_random": REACH},
        value=["kendall.value"],
    ),
    Situation(
        situation="long prompts of which a window leaves few tokens",
        variant="mistral-window",
        changes={"sliding_window": 40, "max_position_embeddings": 512},
        data={"shots": 12, "context_length": 512},
        null={"kendall.top_tokens": f"no more than 100 demonstration tokens are {REACH}"},
        value=["kendall.value"],
    ),
]


@pytest.mark.parametrize("row", SITUATIONS, ids=lambda row: row.situation)
def test_figures(row: Situation, tmp_path: Path) -> None:
    content = measured(row, tmp_path)
    for key, words in row.null.items():
        assert math.isnan(at(content, key)), (key, at(content, key))
        assert words in content["undefined"][key], content["undefined"]
    for key in row.value:
        assert math.isfinite(at(content, key)), key
        assert key not in content["undefined"]
    for key, words in row.partly.items():
        assert 0 < content["undefined_queries"][key]["share"] < 1
        assert words in content["undefined_queries"][key]["reason"]
    for key, (low, high) in row.rounding.items():
        assert low <= content["rounding"][key] <= high, content["rounding"][key]
    every_null_has_a_reason(content)


def measured(row: Situation, folder: Path) -> dict[str, Any]:
    """What `results.json` would say of it."""
    data = tiny_data(folder, **row.data)
    dtype = {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(row.precision, torch.float32)
    model = tiny_model(row.variant, **row.changes).to(dtype)
    for name, parameter in model.named_parameters():
        if any(part in name for part in row.without):
            nn.init.zeros_(parameter)
    probe = ICLProbe(model, data.demonstrations)
    trainer = make_trainer(KVFinetuning(row.rate), precision=row.precision)
    trainer.fit(probe, datamodule=data)
    trainer.validate(probe, datamodule=data, verbose=False)
    comparison = probe.comparison
    assert comparison is not None
    return {
        **plain_comparison(comparison),
        "undefined": undefined(comparison, probe.studied[0]),
        "undefined_queries": undefined_queries(comparison),
        "rounding": rounding(comparison),
    }


def at(content: Mapping[str, Any], key: str) -> float:
    """The number at a dotted key, with a layer in brackets or without."""
    level, _, name = key.partition(".")
    name, _, layer = name.partition("[")
    value = content[level][name]
    return float(value[int(layer.rstrip("]"))] if layer else value)


def every_null_has_a_reason(content: Mapping[str, Any]) -> None:
    """Each null of a figure or a layer is named, or the figure it is the curve of."""
    reasons = content["undefined"]
    for level in ("rec2ftp", "sim_aou", "sim_am", "kendall"):
        for name, value in content[level].items():
            if isinstance(value, float) and math.isnan(value):
                assert f"{level}.{name}" in reasons, (level, name)
            if name.endswith("per_layer"):
                figure = name.removesuffix("per_layer").rstrip("_") or "value"
                for layer, number in enumerate(value):
                    named = f"{level}.{name}[{layer}]" in reasons or f"{level}.{figure}" in reasons
                    assert named or not math.isnan(number), (level, name, layer)
    assert all(reasons.values())


def scaled(variant: str, here: Path, **changes: object) -> None:
    changed_config(model_folder(here, variant), **changes)


CASES = [
    Case(
        situation="a check for rounding in a type that cannot hold it",
        arguments=f"compare --model model {SETTINGS} --check-rounding --precision bf16 --out out",
        prepare=lambda here: model_folder(here) and None,
        says=["--check-rounding", "--precision 32 or 64"],
    ),
    Case(
        situation="LongRoPE whose length lies between the demonstrations and the longest prompt",
        arguments=f"compare --model model {SETTINGS} --out out",
        prepare=partial(scaled, "phi3", rope_parameters=LONG, original_max_position_embeddings=64),
        says=["'longrope'", "beyond 64 tokens", "--shots"],
    ),
    Case(
        situation="the same of a Llama in a sweep",
        arguments="sweep --model model --task tiny.yaml --shots 5 --seeds 1 --lrs 0.1 --select paper --out out",
        prepare=partial(scaled, "llama", rope_parameters=LONG),
        says=["'longrope'", "beyond 64 tokens", "--shots"],
    ),
    Case(
        situation="LongRoPE that no prompt reaches",
        arguments=f"compare --model model {SETTINGS} --limit 2 --out out",
        prepare=partial(scaled, "llama", rope_parameters={**LONG, "original_max_position_embeddings": 128}),
        status=0,
        loads_weights=True,
        makes=["out/tiny/results.json"],
    ),
    Case(
        situation="dynamic scaling within the context",
        arguments=f"compare --model model {SETTINGS} --limit 2 --precision 64 --out out",
        prepare=partial(scaled, "llama", rope_parameters=DYNAMIC),
        status=0,
        loads_weights=True,
        makes=["out/tiny/results.json"],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.situation)
def test_commands(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)
