"""Every reported number equals the oracle's to 1e-4, for every architecture, probe token and kind of answer."""

from pathlib import Path

import pytest
from exactness import deviations
from tiny_models import VARIANTS

from lightning_icl.models.architecture import ARCHITECTURES


@pytest.mark.parametrize("answers", ["single", "multi"])
@pytest.mark.parametrize("probe_token", ["prompt", "answer"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_number_equals_the_oracle(variant: str, probe_token: str, answers: str, tmp_path: Path) -> None:
    found = deviations(variant, probe_token, answers, tmp_path)
    assert max(found.values()) < 1e-4, {name: value for name, value in found.items() if value >= 1e-4}


@pytest.mark.parametrize("probe_token", ["prompt", "answer"])
@pytest.mark.parametrize("variant", ["gpt2", "llama", "gemma2", "gptj", "bloom"])
def test_every_number_equals_the_oracle_in_multiple_choice(variant: str, probe_token: str, tmp_path: Path) -> None:
    found = deviations(variant, probe_token, "choice", tmp_path)
    assert max(found.values()) < 1e-4, {name: value for name, value in found.items() if value >= 1e-4}


def test_every_architecture_of_the_table_has_a_variant() -> None:
    assert {model_type for model_type, _ in VARIANTS.values()} == set(ARCHITECTURES)
