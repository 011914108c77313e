"""The commands on the built-in model and tasks, from the command line to the files."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from lightning_icl.cli import main

SMALL = ["--task", "tiny-sst2,tiny-cb", "--shots", "4", "--limit", "12"]
KEYS = {
    "model": {"name", "architecture", "parameters", "layers", "heads", "dtype"},
    "task": {"name", "labels", "template", "probe_token", "separator"},
    "demonstrations": {"count", "requested", "seed", "indices", "prefix_token_ids", "hash"},
    "finetune": {"lr", "steps", "loss", "update_norm_per_layer"},
    "queries": {"count"},
    "accuracy": {"zsl", "icl", "ft"},
    "rec2ftp": {"value", "corrected_by_ft", "corrected_by_both"},
    "sim_aou": {"value", "raw", "random", "per_layer", "raw_per_layer"},
    "sim_am": {"value", "zsl", "difference", "per_layer", "zsl_per_layer", "difference_per_layer"},
    "kendall": {"value", "random", "per_layer"},
    "timing": {"prefix_s", "finetune_s", "validate_s", "gather_s"},
    "environment": {"date", "system", "processor", "device", "threads", "processes", "batch_tokens"},
    "fingerprints": {"rows", "task", "weights", "overlay"},
}


MOMENTARY = ("timing", "environment", "versions", "task_number")


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def measured(folder: Path) -> dict:
    """Everything that must not depend on how or when a run was made."""
    return {name: value for name, value in results(folder).items() if name not in MOMENTARY}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    main(["compare", *SMALL, "--out", str(out)])
    return out


def test_results_have_the_keys_that_other_programs_rely_on(run: Path) -> None:
    content = results(run / "tiny-cb")
    assert content["schema"] == 1
    for name, keys in KEYS.items():
        assert keys <= set(content[name]), name
    assert content["finetune"]["steps"] == len(content["finetune"]["loss"]) == content["demonstrations"]["count"] == 4
    assert len(content["kendall"]["per_layer"]) == content["model"]["layers"] == 4
    assert content["model"]["name"] == "builtin"
    assert content["versions"]["torch"]
    assert content["environment"]["batch_tokens"] == 1024, "what --batch-tokens auto stood for"


def test_every_figure_has_an_interval_around_it(run: Path) -> None:
    for task in ("tiny-sst2", "tiny-cb"):
        content = results(run / task)
        figures = [
            f"{level}.{name}"
            for level in ("accuracy", "rec2ftp", "sim_aou", "sim_am", "kendall")
            for name, value in content[level].items()
            if not name.startswith("corrected")
            and not name.endswith(("table", "per_head", "example_icl", "example_ft"))
        ]
        assert set(figures) <= set(content["intervals"])
        for level, name in (figure.split(".") for figure in figures):
            value, interval = content[level][name], content["intervals"][f"{level}.{name}"]
            low, high = interval or (None, None)
            curves = (value, low, high) if isinstance(value, list) else ([value], [low], [high])
            for each, below, above in zip(*curves, strict=True):
                undefined = each is None and below is None and above is None
                assert undefined or below - 1e-9 <= each <= above + 1e-9, f"{level}.{name}"
        assert content["bootstrap"]["replicates"] == 1000


def test_predictions_stand_in_data_order_and_make_the_accuracies(run: Path) -> None:
    for task in ("tiny-sst2", "tiny-cb"):
        rows = [json.loads(line) for line in (run / task / "predictions.jsonl").read_text().splitlines()]
        assert [row["index"] for row in rows] == sorted(row["index"] for row in rows)
        assert len(rows) == 12
        accuracy = results(run / task)["accuracy"]
        gold = [row["gold"] for row in rows]
        assert accuracy.pop("majority") == max(map(gold.count, gold)) / len(rows)
        assert 0 <= accuracy.pop("icl_calibrated") <= 1
        for view, share in accuracy.items():
            assert share == sum(row[view] == row["gold"] for row in rows) / len(rows)
            assert all(
                row[view] == max(range(len(row["scores"][view])), key=row["scores"][view].__getitem__) for row in rows
            )


def test_the_saved_configuration_runs_a_task_again(run: Path, tmp_path: Path) -> None:
    saved = yaml.safe_load((run / "tiny-cb" / "config.yaml").read_text())
    assert saved["lr"] > 0
    main(["compare", "--config", str(run / "tiny-cb" / "config.yaml"), "--out", str(tmp_path / "again")])
    assert measured(tmp_path / "again" / "tiny-cb") == measured(run / "tiny-cb")


def test_another_batch_size_changes_nothing(run: Path, tmp_path: Path) -> None:
    main(["compare", *SMALL, "--batch-tokens", "60", "--out", str(tmp_path / "out")])

    def close(one: object, other: object, where: str = "") -> None:
        if isinstance(one, dict):
            for key in one:
                close(one[key], other[key], f"{where}.{key}")
        elif isinstance(one, list):
            for number, (left, right) in enumerate(zip(one, other, strict=True)):
                close(left, right, f"{where}[{number}]")
        elif isinstance(one, float):
            unbounded = ".example_icl[" in where or ".example_ft[" in where  # sums of products, not cosines or shares
            flipped = 1e-3 if ".kendall." in where else 1e-5  # rounding may turn a pair of nearly equal attention
            assert one == pytest.approx(other, abs=flipped, rel=1e-5 if unbounded else None), where
        else:
            assert one == other, where

    for task in ("tiny-sst2", "tiny-cb"):
        close(measured(run / task), measured(tmp_path / "out" / task))
        assert results(tmp_path / "out" / task)["environment"]["batch_tokens"] == 60


def test_fit_then_validate_as_it_advises_equals_compare(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *SMALL, "--out", str(tmp_path / "fit")])
    advice = shlex.split(capsys.readouterr().out.split("with: lightning-icl ")[1])
    main([*advice, "--limit", "12", "--out", str(tmp_path / "val")])
    for task in ("tiny-sst2", "tiny-cb"):
        compared = measured(run / task)
        assert compared["finetune"].pop("sensitivity")["sim_aou.raw"] < 2e-3  # `compare` alone fine-tunes twice
        assert measured(tmp_path / "val" / task) == compared


def test_a_logger_of_lightnings_holds_every_loss_and_the_figures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["compare", *SMALL, "--task", "tiny-cb", "--logger", "csv", "--out", "out"])
    with (tmp_path / "lightning_logs" / "tiny-cb" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    saved = results(tmp_path / "out" / "tiny-cb")
    losses = [float(row["finetune/loss"]) for row in rows if row["finetune/loss"]]
    assert losses == pytest.approx(saved["finetune"]["loss"], rel=1e-5)
    assert float(rows[-1]["accuracy/icl"]) == pytest.approx(saved["accuracy"]["icl"])


def test_an_overlay_of_other_demonstrations_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["validate", *SMALL, "--seed", "2", "--overlay", str(run), "--out", str(tmp_path / "val")])
    assert "other demonstrations" in capsys.readouterr().err


def test_validate_alone_reports_what_needs_no_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["validate", *SMALL, "--out", str(tmp_path / "val")])
    content = results(tmp_path / "val" / "tiny-cb")
    assert content["accuracy"]["icl"] is not None
    assert content["accuracy"]["ft"] is content["rec2ftp"] is content["finetune"] is None
    assert "no fine-tuning" in capsys.readouterr().out


def test_the_overlay_holds_keys_and_values_only(run: Path) -> None:
    tensors = load_file(run / "tiny-cb" / "kv_overlay.safetensors")
    assert {name.split(".")[-2] for name in tensors} == {"k_proj", "v_proj"}


def test_the_report_comes_from_the_files_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(run), "--export"])
    printed = capsys.readouterr().out
    for label in ("ZSL accuracy", "Rec2FTP", "SimAOU", "SimAM", "Kendall", "tiny-sst2", "tiny-cb", "mean"):
        assert label in printed
    shown = f"{100 * results(run / 'tiny-cb')['accuracy']['icl']:.1f}"
    assert re.search(rf"ICL accuracy.*{re.escape(shown)}", printed)
    for name in ("summary.md", "summary.csv", "sim_aou.png", "sim_am.png", "kendall.png"):
        assert (run / name).stat().st_size > 0


def test_a_finished_run_is_not_replaced(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "tiny-cb" / "results.json").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *SMALL, "--out", str(run)])
    assert stopped.value.code == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (run / "tiny-cb" / "results.json").read_bytes() == before


def test_show_prompt_prints_tokens_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", *SMALL, "--show-prompt", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "Zero-shot" in printed
    assert "In-context" in printed
    assert "' Positive' (" in printed
    assert not (tmp_path / "out").exists()


def test_a_prompt_template_is_checked_for_every_task_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--task", "tiny-sst2", "--template", "paper"])
    assert "has no template 'paper'" in capsys.readouterr().err
