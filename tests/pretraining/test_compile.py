"""A compiled training is the same training, and is refused where nothing can compile it."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lightning_icl.cli import main

# With momentum, so that its scan is compiled too; one length of rows, since each is compiled anew.
SMALL = "--layers 1 --width 16 --heads 2 --block 32 --short-block 32 --short-steps 0 --batch 4 --vocabulary 300".split()
SMALL += "--steps 4 --warmup 2 --checkpoint-every 4 --accelerator cpu --momentum 0.9 --learn-momentum".split()


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_losses_and_weights_are_those_of_a_training_that_is_not_compiled(tmp_path: Path) -> None:
    main(["pretrain", "--out", str(tmp_path / "plain"), *SMALL])
    # A process of its own: here types are checked at run time, which the compiler cannot follow.
    program = "from lightning_icl.cli import main; main(); from torch._dynamo.utils import counters; "
    program += "assert counters['stats']['unique_graphs']"
    command = [sys.executable, "-W", "ignore", "-c", program]
    command += ["pretrain", "--out", str(tmp_path / "compiled"), *SMALL, "--compile"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    texts = [(tmp_path / out / "training_log.csv").read_text().splitlines() for out in ("plain", "compiled")]
    logs = [list(csv.DictReader(text)) for text in texts]
    for one, other in zip(*logs, strict=True):
        assert {name: float(value) for name, value in one.items()} == pytest.approx(
            {name: float(value) for name, value in other.items()}, rel=1e-5, abs=1e-6
        )
    plain, compiled = (load_file(tmp_path / out / "model.safetensors") for out in ("plain", "compiled"))
    # Adam divides by a gradient's own size, so where that is tiny its rounding shows.
    assert all((compiled[name] - tensor).abs().max() < 1e-4 for name, tensor in plain.items())


def test_a_machine_without_a_compiler_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", "--out", str(tmp_path / "m"), *SMALL, "--compile"])
    assert "needs a C++ compiler, and no-such-compiler is not there" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
