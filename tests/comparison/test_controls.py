"""Controls from the command line to the files and the printed table."""

import json
from pathlib import Path

import pytest

from lightning_icl.cli import main
from lightning_icl.comparison.controls.catalogue import CONTROLS

SMALL = ["--task", "tiny-cb", "--shots", "4", "--limit", "9"]


def results(folder: Path) -> dict:
    return json.loads((folder / "tiny-cb" / "results.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("controls") / "out"
    main(["compare", *SMALL, "--controls", "all", "--control-lr", "layer-causal=0.02", "--out", str(out)])
    return out


def test_every_control_has_the_figures_of_the_main_comparison(run: Path) -> None:
    found = results(run)
    controls = found["controls"]
    assert [name for name in controls if name in CONTROLS] == list(CONTROLS)
    for name, control in controls.items():
        assert control["title"]
        assert "left out" not in control.get("note", ""), (name, control["note"])
        assert control["accuracy"].keys() == {"zsl", "icl", "ft"}
        for level in ("rec2ftp", "sim_aou", "sim_am", "kendall"):
            assert control[level].keys() == found[level].keys()
    difference = controls["ft-query"]["sim_aou"]["value"] - found["sim_aou"]["value"]
    assert controls["ft-query"]["difference"]["sim_aou"] == pytest.approx(difference)


def test_a_control_learns_at_its_own_rate_and_says_so(run: Path) -> None:
    found = results(run)
    rates = {name: control["lr"] for name, control in found["controls"].items()}
    assert rates.pop("layer-causal") == 0.02
    assert rates.pop("shuffled-query") is None
    assert set(rates.values()) == {found["finetune"]["lr"]}
    assert found["controls"]["layer-causal"]["note"] == "at rate 0.02"


def test_a_rate_of_a_control_that_is_not_asked_for_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", *SMALL, "--control-lr", "layer-causal=0.02"])
    assert "Give --controls too" in capsys.readouterr().err


def test_controls_change_nothing_about_the_main_comparison(run: Path, tmp_path: Path) -> None:
    main(["compare", *SMALL, "--out", str(tmp_path / "plain")])
    plain, controlled = results(tmp_path / "plain"), results(run)
    for key in ("accuracy", "rec2ftp", "sim_aou", "sim_am", "kendall", "finetune"):
        assert plain[key] == controlled[key]
    name = "tiny-cb/predictions.jsonl"
    assert (tmp_path / "plain" / name).read_text() == (run / name).read_text()


def test_the_mean_over_orders_is_that_of_its_rows(run: Path) -> None:
    controls = results(run)["controls"]
    orders = [controls[f"order-{number}"] for number in (1, 2, 3)]
    mean = sum(order["sim_aou"]["raw"] for order in orders) / 3
    assert controls["order"]["sim_aou"]["raw"] == pytest.approx(mean)
    assert 0 <= controls["order"]["sensitivity"]["ft"] <= 0.5
    assert controls["order"]["sensitivity"]["zsl"] == 0


def test_the_table_comes_from_the_files_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(run)])
    printed = capsys.readouterr().out
    figures = results(run)["controls"]["ft-query"]
    assert figures["title"][:30] in printed
    row = next(line for line in printed.splitlines() if line.startswith("│ ft-query "))
    assert f"{100 * figures['accuracy']['ft']:.1f}" in row
    assert f"{figures['sim_aou']['value']:.3f}" in row


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_half_a_comparison_has_no_controls(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, *SMALL, "--controls", "order"])
    assert "use them with `compare`" in capsys.readouterr().err
