"""Every shipped YAML is a valid configuration."""

from pathlib import Path

import pytest
import yaml

from lightning_icl.comparison.plan import learning_rate_for, seed_for
from lightning_icl.comparison.settings import CompareSettings
from lightning_icl.models.finding import BUILTIN
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.published import published_size, tables
from lightning_icl.tasks.catalogue import resolve_tasks

ROOT = Path(__file__).parents[1]
PAPER = sorted((ROOT / "experiments" / "paper").glob("*.yaml"))


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_paper_configurations_use_the_published_seeds_and_rates(path: Path) -> None:
    settings = CompareSettings(**yaml.safe_load(path.read_text()))
    size = published_size(settings.model)
    assert size is not None
    for name, task in resolve_tasks(settings.task).items():
        assert seed_for(settings, task) == tables()[size]["seed"][name]
        assert learning_rate_for(settings, task) == tables()[size]["learning_rate"][name]


def test_there_is_one_file_for_each_table_and_model() -> None:
    measured = ("accuracy", "rec2ftp", "simaou", "simam", "kendall")
    assert {path.stem for path in PAPER} == {f"{table}-{size}" for table in measured for size in ("1.3b", "2.7b")}


STAGES = {
    "builtin": ["icl-tiny/train", "icl-tiny/adapt", "icl-tiny/settle"],
    "builtin-momentum": ["icl-tiny-momentum/train", "icl-tiny-momentum/adapt", "icl-tiny-momentum/settle"],
}


@pytest.mark.parametrize("name", BUILTIN)
def test_the_stages_of_a_built_in_model_lead_from_nothing_to_its_folder(name: str) -> None:
    before, momentum = None, False
    for stage in STAGES[name]:
        settings = PretrainSettings(**yaml.safe_load((ROOT / "checkpoints" / f"{stage}.yaml").read_text()))
        assert settings.init == before
        before, momentum = settings.out, momentum or settings.learn_momentum
    assert before == f"checkpoints/{BUILTIN[name]}"
    assert momentum == ("momentum" in name)
