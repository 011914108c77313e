"""A compiled training is the same training, and is refused where nothing can compile it."""

import csv
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lightning_icl.cli import main

# Momentum, two lengths of rows and gates: everything that the loss is made of.
SMALL = "--layers 1 --width 16 --heads 2 --block 32 --short-block 16 --short-steps 2 --batch 4 --vocabulary 300".split()
SMALL += "--steps 4 --warmup 2 --checkpoint-every 4 --accelerator cpu --momentum 0.9 --learn-momentum".split()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")  # the compiler's own
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_losses_and_weights_are_those_of_a_training_that_is_not_compiled(tmp_path: Path) -> None:
    for out, flags in (("plain", []), ("compiled", ["--compile"])):
        main(["pretrain", "--out", str(tmp_path / out), *SMALL, *flags])
    logs = [list(csv.DictReader((tmp_path / out / "training_log.csv").open())) for out in ("plain", "compiled")]
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
