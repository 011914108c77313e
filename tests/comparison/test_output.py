"""A run that was broken off goes on with the same command, and with no other; settings stand beside their figures."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from lightning_icl.cli import main
from lightning_icl.models.finding import find_model
from lightning_icl.saving.workspace import Workspace

SMALL = ["--task", "tiny-cb,tiny-mr", "--shots", "2", "--limit", "3"]
MARKERS = {
    "compare": "results.json", "fit": "finetune.json", "validate": "results.json", "dual-form": "dual_form.json",
    "weight-update": "weight_update.json",
}  # fmt: skip


def broken_off(command: str, out: Path) -> Path:
    """Let a run be interrupted as its second task is to be written; what the first has left."""
    plain, begun = Workspace.replacing, []

    def stop(space: Workspace, target: Path) -> AbstractContextManager[Path]:
        begun.append(target)
        if len(begun) > 1:
            raise KeyboardInterrupt
        return plain(space, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workspace, "replacing", stop)
        with pytest.raises(SystemExit) as interrupted:
            main([command, *SMALL, "--out", str(out)])
    assert interrupted.value.code == 130
    assert [path.name for path in out.iterdir()] == ["tiny-cb"]
    return out / "tiny-cb" / MARKERS[command]


def figures(folder: Path, marker: str) -> dict[str, dict]:
    contents = {path.parent.name: json.loads(path.read_text()) for path in folder.glob(f"*/{marker}")}
    return {
        task: {key: value for key, value in content.items() if key not in ("timing", "environment")}
        for task, content in contents.items()
    }


@pytest.mark.parametrize("command", MARKERS)
def test_the_same_command_keeps_what_is_finished_and_makes_the_rest(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = broken_off(command, tmp_path / "out")
    before = first.stat().st_mtime_ns
    main([command, *SMALL, "--out", str(tmp_path / "out")])
    assert "Kept, as made before with the same settings: tiny-cb." in capsys.readouterr().out
    assert first.stat().st_mtime_ns == before
    main([command, *SMALL, "--out", str(tmp_path / "whole")])
    marker = MARKERS[command]
    assert figures(tmp_path / "out", marker) == figures(tmp_path / "whole", marker)
    with pytest.raises(SystemExit):
        main([command, *SMALL, "--out", str(tmp_path / "out")])
    assert "already holds a run (tiny-cb, tiny-mr)" in capsys.readouterr().err


def changed_tokenizer(here: Path) -> None:
    path = here / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "<s>"}))


def changed_neighbour(here: Path) -> None:
    path = here / "data" / "sst5" / "train.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


@pytest.mark.parametrize(
    ("change", "controls"), [(changed_tokenizer, ""), (changed_neighbour, "other-task")], ids=["tokenizer", "neighbour"]
)
def test_what_was_made_from_other_tokens_is_not_kept(
    change: Callable[[Path], None], controls: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(find_model("builtin").location, tmp_path / "model")
    for task in ("sst2", "sst5"):
        (tmp_path / "data" / task).mkdir(parents=True)
        for split in ("train", "validation"):
            texts = [f"{split} {number}" for number in range(12)]
            rows = [{"text": text, "sentence": text, "label": number % 2} for number, text in enumerate(texts)]
            (tmp_path / "data" / task / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["compare", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--task", "sst2"]
    words += ["--shots", "2", "--limit", "3", "--lr", "0.1", "--out", str(tmp_path / "out")]
    words += ["--controls", controls] if controls else []
    main(words)
    # As an interrupted run leaves it: the settings of the whole are written last.
    (tmp_path / "out" / "config.yaml").unlink()
    main(words)
    assert "Kept, as made before with the same settings: sst2." in capsys.readouterr().out
    (tmp_path / "out" / "config.yaml").unlink()
    change(tmp_path)
    with pytest.raises(SystemExit):
        main(words)
    assert "already holds a run (sst2)" in capsys.readouterr().err


@pytest.mark.parametrize("change", [["--seed", "2"], ["--shots", "3"], ["--task", "tiny-mr"]], ids=" ".join)
def test_another_command_does_not_go_on(change: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--task", "tiny-cb", "--shots", "2", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        main(["fit", "--task", "tiny-cb", "--shots", "2", *change, "--out", str(tmp_path / "out")])
    assert "already holds a run (tiny-cb)" in capsys.readouterr().err


def test_settings_of_the_whole_run_stand_beside_figures_that_they_made_or_not_at_all(tmp_path: Path) -> None:
    out, again = tmp_path / "out", ["--out", str(tmp_path / "out"), "--overwrite"]

    def seed() -> int:
        return yaml.safe_load((out / "config.yaml").read_text())["seed"]

    main(["fit", *SMALL, "--out", str(out)])
    assert seed() == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_icl.models.subject.load_model", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(["fit", *SMALL, "--seed", "2", *again])
    assert seed() == 1
    main(["fit", *SMALL, "--task", "tiny-mr", "--seed", "3", *again])
    assert not (out / "config.yaml").exists()
    assert yaml.safe_load((out / "tiny-cb" / "config.yaml").read_text())["seed"] == 1
    assert yaml.safe_load((out / "tiny-mr" / "config.yaml").read_text())["seed"] == 3
    main(["fit", *SMALL, "--seed", "4", *again])
    assert seed() == 4
