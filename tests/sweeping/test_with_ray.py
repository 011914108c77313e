"""A sweep that Ray divides has the runs and numbers of one that a single process makes."""

import json
import sys
from pathlib import Path

import pytest

from lightning_icl.cli import main
from lightning_icl.errors import UserError
from lightning_icl.sweeping.with_ray import collect, make_part, sweep_with_ray

FLAGS = ["--task", "tiny-cb", "--shots", "4", "--seeds", "1,2", "--lrs", "0.1,0.5", "--limit", "12", "--heldout", "16"]


def measured(out: Path) -> dict[str, dict]:
    """Every run's figures to nine digits behind the point (threads may add up in another order), without times."""
    found = {
        str(path.parent.relative_to(out)): json.loads(path.read_text(), parse_float=lambda text: round(float(text), 9))
        for path in out.rglob("run.json")
    }
    for run in found.values():
        for key in [key for key in run if "seconds" in key or key == "settings"]:
            del run[key]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    main(["sweep", *FLAGS, "--out", str(folder / "sweep")])
    return folder / "sweep"


def test_parts_begin_relative_paths_where_they_are_told_to(whole: Path, tmp_path: Path) -> None:
    flags = [*FLAGS, "--out", "sweep"]
    for number in range(2):
        make_part(flags, number, 2, tmp_path)
    collect(flags, tmp_path)
    assert (tmp_path / "sweep" / "sweep.csv").read_text().splitlines()[0] == (
        whole / "sweep.csv"
    ).read_text().splitlines()[0]
    assert measured(tmp_path / "sweep") == measured(whole)


def test_a_failed_part_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny-bc.*tiny-cb"):
        make_part(["--task", "tiny-bc", "--out", "sweep"], 0, 2, tmp_path)


def test_without_ray_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"lightning-icl\[ray\]"):
        sweep_with_ray(FLAGS, 2)


def test_trials_of_ray_tune_make_the_whole_sweep(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.tune", reason="Ray Tune is optional: pip install 'lightning-icl[ray]'")
    monkeypatch.chdir(tmp_path)
    sweep_with_ray([*FLAGS, "--out", "sweep"], 2)
    assert measured(tmp_path / "sweep") == measured(whole)
