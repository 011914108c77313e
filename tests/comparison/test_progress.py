"""Lines of progress name the task, the phase, and the time left."""

import re
from pathlib import Path

import pytest
from exactness import make_trainer
from tiny_models import tiny_model
from tiny_task import tiny_data

from lightning_icl.comparison.progress import PhaseBar, PhaseLines
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe

LINE = re.compile(r"tiny: (fine-tuning, step|queries, batch) (\d+) of (\d+), about \d:\d\d:\d\d left")


@pytest.mark.parametrize(("every", "tuning", "probing"), [(1e9, 1, 1), (0.0, 5, None)])
def test_lines_count_to_the_end_and_no_time_is_left_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], every: float, tuning: int, probing: int | None
) -> None:
    data = tiny_data(tmp_path)
    probe = ICLProbe(tiny_model("gpt2"), data.demonstrations)
    trainer = make_trainer(KVFinetuning(0.01), PhaseLines("tiny", every=every))
    trainer.fit(probe, datamodule=data)
    trainer.validate(probe, datamodule=data, verbose=False)
    lines = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines() if line.startswith("tiny:")]
    steps = [(int(line[2]), int(line[3])) for line in lines if line and line[1].startswith("fine")]
    batches = [(int(line[2]), int(line[3])) for line in lines if line and line[1].startswith("queries")]
    assert len(steps) + len(batches) == len(lines)
    assert steps == [(number, 5) for number in range(1, tuning + 1)]
    total = len(data.val_dataloader().dataset)  # type: ignore[union-attr, arg-type]
    assert batches == [(number, total) for number in range(1, (probing or total) + 1)]


def test_the_bar_names_task_and_phase() -> None:
    bar = PhaseBar("tiny")
    assert bar.validation_description == "tiny: queries"
    assert bar._get_train_description(0) == "tiny: fine-tuning"
