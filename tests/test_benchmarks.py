"""The benchmarks run on a tiny model and say what they promise."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_speed_table_has_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    command = [sys.executable, "-m", "benchmarks.speed", "--size", "tiny", "--rounds", "1", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(file.read_text())
    assert result.keys() == {"workload", "rounds", "machine", "ratios", "seconds", "skipped"}
    figures = {ratio["name"]: ratio for ratio in result["ratios"]}
    assert {
        "ICL / ZSL observation",
        "comparison / bare forward",
        "Kendall's share of the comparison",
        "peers' way / ICL, a query",
        "ZSL's share of that rate, float32",
        "ZSL float32 / bfloat16",
        "fine-tuning by the Trainer / bare loop",
        "comparison, layers × 1/2 / own",
    } <= figures.keys()
    left_out = any(what.startswith("bfloat16") for what in result["skipped"])
    assert ("matrix products, bfloat16, GFLOP/s" in figures) != left_out
    for ratio in figures.values():
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
        assert ratio["name"] in done.stdout


def test_throughput_is_told_in_tokens_and_as_a_share_of_the_matrix_rate(tmp_path: Path) -> None:
    file = tmp_path / "throughput.json"
    command = [sys.executable, "-m", "benchmarks.throughput", "--size", "tiny", "--rounds", "1", "--device", "cpu",
               "--dtype", "bfloat16", "--json", str(file)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(file.read_text())
    figures, seconds = {ratio["name"]: ratio["median"] for ratio in result["ratios"]}, result["seconds"]
    assert figures["ZSL, tokens a second"] == pytest.approx(4 * 12 / seconds["zsl"][0])
    assert figures["ICL's share of the matrix rate"] == pytest.approx(seconds["products"][0] / seconds["icl"][0])


def test_memory_is_told_apart_into_what_takes_it() -> None:
    command = [sys.executable, "-m", "benchmarks.memory", "--size", "tiny", "--queries", "8"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # Two layers of width 64, 97 and 1 tokens twice: keys and values in float32.
    assert found["prefix"] == 2 * 2 * 64 * (97 + 1 + 1) * 4 / 1e6
    assert found["libraries"] <= found["fine-tuned"] <= found["peak"]


def test_controls_need_fewer_passes_of_the_model_than_they_have_conditions(tmp_path: Path) -> None:
    file = tmp_path / "controls.json"
    command = [sys.executable, "-m", "benchmarks.controls_cost", "--size", "tiny", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(file.read_text())
    counts, seconds = found["counts"], found["seconds"]
    assert counts["conditions"] == 37  # calibrated ICL is read in every comparison
    assert counts["passes of the model"] <= 33  # calibration looks at what the main comparison sees
    assert seconds["pass"] > seconds["kendall, of it"] > 0
    for ratio in found["ratios"]:
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
        assert ratio["name"] in done.stdout


def test_a_group_of_fine_tunings_is_measured_against_single_ones(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.group_cost import main

    main(["--size", "tiny", "--runs", "3", "--rounds", "1"])
    line = capsys.readouterr().out
    assert line.startswith("3 apart / together: ")
    difference = float(line.split("differ by ")[1].split(" ")[0])
    assert difference < 1e-4


def test_sizes_of_batches_are_held_against_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.batch_cost import main

    main(["--size", "tiny", "--budgets", "24", "1024", "--queries", "4", "--rounds", "1", "--device", "cpu"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "tiny, float32, cpu: 4 queries of 12 tokens"
    assert [line.split("  ")[0] for line in lines] == ["24 / auto (1,024)"]
    assert float(lines[0].split()[4]) > 0


def test_all_rungs_together_are_said_in_looks_in_context(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.ladder_cost import main, ratios

    taken = {"icl": [2.0, 4.0, 4.0], "none": [1.0, 2.0, 4.0], "affine": [3.0, 6.0, 4.0], "building": [4.0, 4.0, 8.0]}
    assert ratios(taken) == {"icl": 1, "none": 0.5, "affine": 1.5, "building": 2, "rungs": 1}
    main(["--size", "tiny", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[:-1]]
    assert names == [
        "icl", "none", "linear-raw", "linear", "constant", "constant-mass", "affine", "quadratic", "softmax",
        "building", "rungs",
    ]  # fmt: skip
    assert lines[0].split()[1] == "1.00"
    assert float(lines[-1].split()[3]) > 0


def test_kernels_are_held_against_float64_and_those_a_device_lacks_are_named() -> None:
    command = [sys.executable, "-m", "benchmarks.prefix_kernels", "--tokens", "80", "--prefix", "32", "--heads", "2",
               "--rounds", "1", "--dtype", "float32", "--device", "cpu"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("flash", "cuDNN", "memory-efficient"):
        assert f"{name}: not on this device" in done.stdout
    (deviations,) = re.findall(r"^products .*off by (\S+), log-sum-exp by (\S+)$", done.stdout, flags=re.MULTILINE)
    assert all(0 < float(value) < 1e-5 for value in deviations)
