"""What is saved of uncertainty when several contrasts share a run."""

import json

import pytest
import torch

from lightning_icl.comparison.uncertainty import uncertainty
from lightning_icl.metrics import Rec2FTP, SimAOU
from lightning_icl.metrics.bootstrap import Bootstrapped
from lightning_icl.probing.findings import Prediction
from lightning_icl.results import to_json

QUERIES, LAYERS = 80, 2
IDS = torch.arange(QUERIES)


def contrast(noise: float) -> dict[str, Bootstrapped]:
    """Figures of a fine-tuning that is the in-context update and noise."""
    generator = torch.Generator().manual_seed(0)
    zsl, icl, other = torch.randn(3, QUERIES, LAYERS, 16, generator=generator)
    sim_aou, rec2ftp = SimAOU(LAYERS, replicates=1000), Rec2FTP(replicates=1000)
    sim_aou.update(zsl, icl, icl + noise * other, IDS)
    wrong, right = torch.tensor([1.0, 0.0]).expand(QUERIES, 2), torch.tensor([0.0, 1.0]).expand(QUERIES, 2)
    rec2ftp.update(wrong, right, wrong, torch.ones(QUERIES, dtype=torch.int64), IDS)
    levels = {"sim_aou": sim_aou.bootstrap(), "rec2ftp": rec2ftp.bootstrap()}
    return {f"{level}.{name}": figure for level, found in levels.items() for name, figure in found.items()}


def predictions() -> list[Prediction]:
    return [
        Prediction(index=query, gold=query % 2, scores={"zsl": [1.0, 0.0], "icl": [0.0, 1.0]}) for query in IDS.tolist()
    ]


def test_main_is_tested_against_every_other_contrast_over_the_same_queries() -> None:
    main, same, noisy = contrast(1.0), contrast(1.0), contrast(3.0)
    content = json.loads(to_json(uncertainty({"main": main, "same": same, "noisy": noisy}, predictions())))
    assert set(content["paired"]) == set(content["contrast_intervals"]) == {"same", "noisy"}
    assert content["paired"]["same"]["sim_aou.raw"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    test = content["paired"]["noisy"]["sim_aou.raw"]
    expected = float(main["sim_aou.raw"].estimate - noisy["sim_aou.raw"].estimate)
    assert test["difference"] == pytest.approx(expected)
    assert 0 < test["low"] < test["difference"] < test["high"]
    assert test["p"] == pytest.approx(2 / 1001)
    # Both are shares of no query at all.
    assert content["paired"]["noisy"]["rec2ftp.value"] == dict.fromkeys(("difference", "low", "high", "p"))
    assert content["intervals"]["rec2ftp.value"] is None
    assert content["bootstrap"]["undefined_share"]["rec2ftp.value"] == 1


def test_without_other_contrasts_there_is_nothing_to_test_against() -> None:
    content = uncertainty({"main": contrast(1.0)}, predictions())
    assert not {"paired", "contrast_intervals"} & set(content)


def test_without_fine_tuning_accuracies_have_intervals_all_the_same() -> None:
    content = uncertainty({}, predictions())
    assert set(content["intervals"]) == {"accuracy.zsl", "accuracy.icl", "accuracy.majority"}
    low, high = content["intervals"]["accuracy.zsl"]
    assert low < 0.5 < high
    assert uncertainty({}, [])["intervals"] == {}
