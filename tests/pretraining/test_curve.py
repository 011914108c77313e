"""The training log of a run that was interrupted."""

import csv
from pathlib import Path

from lightning_icl.pretraining.curve import join_logs


def write_log(path: Path, losses: dict[int, float]) -> Path:
    path.write_text("loss,step\n" + "".join(f"{loss},{step}\n" for step, loss in losses.items()), encoding="utf-8")
    return path


def test_steps_done_twice_count_as_last_done(tmp_path: Path) -> None:
    first = write_log(tmp_path / "first.csv", {9: 5.0, 19: 4.0, 29: 3.0})
    again = write_log(tmp_path / "again.csv", {15: 4.5, 25: 3.5})
    nothing = write_log(tmp_path / "nothing.csv", {})
    join_logs([first, again, nothing], tmp_path / "joined.csv")
    rows = list(csv.DictReader((tmp_path / "joined.csv").read_text(encoding="utf-8").splitlines()))
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == [(9, 5.0), (15, 4.5), (25, 3.5)]
