"""The weight-update experiment goes on where it stopped, says what it left out, and sums up what is finished."""

import csv
import json
from pathlib import Path
from statistics import fmean

import pytest
from tiny_models import tiny_model

from experiments.weight_update.run import main, parsed, parts
from experiments.weight_update.summary import comparable, summarise

SMALL = ["--scopes", "probe", "--seeds", "3", "--limit", "4", "--held-out", "3"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("experiment") / "out"
    main(["builtin", *SMALL, "--tasks", "tiny-sst2", "--shots", "2", "--out", str(out)])
    return out


def test_it_makes_one_row_for_each_condition_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["builtin", *SMALL, "--tasks", "tiny-cb,tiny-sst2", "--shots", "2", "--out", str(out)]
    main(words)
    first = (out / "summary.csv").read_text()
    rows = list(csv.DictReader(first.splitlines()))
    assert len(rows) == 20
    assert {(row["task"], row["shots"], row["seed"]) for row in rows} == {
        ("tiny-cb", "2", "3"),
        ("tiny-sst2", "2", "3"),
    }
    affine = fmean(float(row["kl"]) for row in rows if row["condition"] == "affine")
    assert f"| affine | {affine:.3g} |" in capsys.readouterr().out
    matrices = list(csv.DictReader((out / "matrices.csv").read_text().splitlines()))
    content = json.loads((out / "probe-tiny-cb-2-shots-seed-3" / "tiny-cb" / "weight_update.json").read_text())
    cosines = [value for row in content["matrix_controls"]["untrained"]["cosine"] for value in row]
    assert float(matrices[0]["untrained ICL·FT"]) == pytest.approx(fmean(cosines))
    assert (out / "rungs.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("experiments.weight_update.run.weight_update", None)
    main(words)
    assert (out / "summary.csv").read_text() == first


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--limit", "5"], "was made with --limit 4, not 5"),
        (["--held-out", "4"], "was made with --held-out 3, not 4"),
        (["--lr", "0.2"], "was made with --lr"),
        (["--scopes", "foo"], "--scope 'foo' is not known"),
        (["--tasks", "tiny-sst3"], "Did you mean 'tiny-sst"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_parts_of_other_settings_never_stand_together(
    change: list[str], says: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["builtin", *SMALL, "--tasks", "tiny-sst2", "--shots", "2", "--out", str(small), *change])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


def test_means_over_shots_are_of_the_same_tasks_and_seeds() -> None:
    def row(task: str, shots: int, seed: int, scope: str = "probe") -> dict[str, object]:
        return {"task": task, "shots": shots, "seed": seed, "scope": scope, "condition": "icl", "kl": float(shots)}

    whole = [row("sst2", shots, seed) for shots in (4, 16) for seed in (1, 2)]
    # Of mr, 16 shots do not fit; of sst5, the second seed has not come so far.
    partial = [row("mr", 4, 1), row("mr", 4, 2), row("sst5", 4, 2)]
    full = [row("sst5", 4, 1), row("sst5", 16, 1)]
    # Another scope has one number of shots, which all its parts have.
    other = [row("mr", 4, 1, "alone")]
    assert comparable([*whole, *partial, *full, *other]) == [*whole, *full, *other]
    nowhere = [row("sst2", 4, 1), row("mr", 16, 1)]
    assert comparable(nowhere) == nowhere


def test_a_part_that_is_refused_is_said_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lightning_icl import find_model, load_tokenizer

    tokenizer = load_tokenizer(find_model("builtin"))
    tokenizer.save_pretrained(tmp_path / "model")
    config = tiny_model("mistral-window").config
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 2048
    config.save_pretrained(tmp_path / "model")
    words = [f"random:{tmp_path / 'model'}", *SMALL, "--tasks", "tiny-sst2", "--out", str(tmp_path / "out")]
    main([*words, "--shots", "1", "2", "--lr", "0.01"])
    printed = capsys.readouterr().out
    for shots in (1, 2):
        assert f"probe-tiny-sst2-{shots}-shots-seed-3: " in printed
    assert "see the last 20 tokens only" in printed


def test_the_whole_experiment_and_the_quick_one(tmp_path: Path) -> None:
    assert len(list(parts(parsed(["builtin"])))) == 3 * 3 * 6 * 6
    assert [settings.task for settings in parts(parsed(["smollm2-135m", "--quick", "--shots", "4"]))] == [
        "sst2",
        "agnews",
    ]
    assert "no finished part" in summarise(tmp_path)
