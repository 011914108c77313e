"""Mistakes on the command line: one line, the nearest valid word, before any weights are loaded."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_icl.cli import COMMANDS, main


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--shot", "3"], "Did you mean '--shots'"),
        (["compre"], "Did you mean 'compare'"),
        (["compare", "--task", "sst-2"], "Did you mean 'sst2'"),
        (["compare", "--shots", "0"], "--shots 0: it must be at least 1"),
        (["compare", "--lr", "-1"], "positive"),
        (["compare", "--limit", "0"], "--limit 0"),
        (["compare", "--precision", "8"], "32-true"),
        (["compare", "--model", "./no/such/folder"], "does not exist"),
        (["compare", "--model", "bultin"], "Did you mean 'builtin'"),
        (["compare", "--lr", "published"], "the paper gives no rate for task 'tiny-sst2'"),
        (["compare", "--seed", "published"], "the paper gives no seed"),
        (["compare", "--task", "mine.yaml"], "cannot be read"),
        (["report", "no/such/run"], "holds no finished run"),
        (["compare", "--data", "no/such/folder", "--task", "sst2"], "is no folder"),
    ],
)
def test_mistakes_are_one_helpful_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = [] if arguments[0] in ("report", "compre") else ["--out", str(tmp_path / "out")]
    assert message in error_of([*arguments, *out], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert not stopped.value.code
    assert f"lightning-icl {command}" in capsys.readouterr().out


def test_an_unknown_key_in_a_configuration_names_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("modell: builtin\n")
    assert "Did you mean 'model'" in error_of(["compare", "--config", str(config)], capsys)


def test_the_package_can_be_run_like_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "lightning_icl", "compre"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Did you mean 'compare'" in done.stderr


def test_an_interrupt_ends_with_status_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lightning_icl.probing.probe import ICLProbe

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ICLProbe, "training_step", stop)
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--task", "tiny-cb", "--shots", "2", "--limit", "2", "--out", str(tmp_path / "out")])
    assert stopped.value.code == 130
    assert not (tmp_path / "out" / "tiny-cb").exists()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("re", {"report"}),
        ("sweep --sel", {"--select"}),
        ("compare --probe-token ", {"prompt", "answer"}),
        ("compare --task tiny-s", {"tiny-sst2", "tiny-sst5", "tiny-subj"}),
    ],
)
def test_a_shell_completes_what_is_typed(typed: str, offered: set[str], completion: Path) -> None:
    words = " ".join(f"'{word}'" for word in f"lightning-icl {typed}".split(" "))
    script = f"source {completion}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_lightning_icl"
    shell = subprocess.run(["bash", "-c", f"{script}; echo ${{COMPREPLY[@]}}"], capture_output=True, text=True)
    assert set(shell.stdout.split()) == offered, shell.stderr


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = tmp_path_factory.mktemp("completion") / "completion.bash"
    with script.open("w") as file, contextlib.redirect_stdout(file):
        main(["completion", "bash"])
    return script


def test_bare_it_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "compare" in capsys.readouterr().out


def test_listings_name_everything(capsys: pytest.CaptureFixture[str]) -> None:
    from lightning_icl.models.architecture import ARCHITECTURES, REFUSED
    from lightning_icl.tasks.catalogue import TASKS

    main(["tasks"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in TASKS)
    main(["models"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*ARCHITECTURES, *REFUSED))
