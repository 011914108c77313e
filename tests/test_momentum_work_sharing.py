"""The momentum experiment shared by processes: every piece made once, none lost with its holder, the same figures."""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_experiment import tiny_experiment

from experiments.momentum import measure, output, work_sharing
from experiments.momentum.run import run
from experiments.momentum.work_sharing import Piece, run_shared
from lightning_icl.errors import UserError
from lightning_icl.pretraining import _module, data
from lightning_icl.pretraining import run as pretraining

# What a training needs, so that a forked process need not import it again.
_IMPORTED = (measure, _module, data)
# A forked process has everything imported already, but cannot use a GPU that its parent has used.
PROCESSES = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
FIGURES = ("results.json", "differences.json", "search.json", "tables.md")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_sharing, "_PAUSE", 0.01)


def squares(folder: Path, count: int, after: Mapping[int, int] | None = None) -> list[Piece]:
    """Pieces that write the square of their number into a file, and their name into a list of what was made."""

    def make(number: int) -> Callable[[Mapping[str, Any]], int]:
        def made(_: Mapping[str, Any]) -> int:
            path = folder / f"{number}.txt"
            if not path.exists():
                with (folder / "made").open("a") as file:
                    file.write(f"{number}\n")
                time.sleep(0.01)
                path.write_text(str(number**2))
            return int(path.read_text())

        return made

    return [Piece(str(n), make(n), after=str(after[n]) if after and n in after else None) for n in range(count)]


def names_made(folder: Path) -> list[str]:
    return (folder / "made").read_text().split()


def test_every_piece_is_made_once_and_all_have_everything(tmp_path: Path) -> None:
    after = {number: number // 2 for number in range(4, 12)}
    with ThreadPoolExecutor(4) as several:
        found = [
            several.submit(run_shared, squares(tmp_path, 12, after), tmp_path / "out", lambda _: None) for _ in range(4)
        ]
    assert [one.result() for one in found] == [{str(number): number**2 for number in range(12)}] * 4
    order = names_made(tmp_path)
    assert Counter(order) == Counter(map(str, range(12)))
    assert all(order.index(str(first)) < order.index(str(then)) for then, first in after.items())
    assert not list((tmp_path / "out").rglob("*"))  # no lock is left


def hold(folder: Path) -> None:
    """Begin a piece and never end it."""

    def make(_: Mapping[str, Any]) -> None:
        (folder / "begun").touch()
        time.sleep(600)

    run_shared([Piece("0", make)], folder / "out", lambda _: None)


def test_what_a_killed_process_held_is_waited_for_and_then_taken_up(tmp_path: Path) -> None:
    holder = PROCESSES.Process(target=hold, args=(tmp_path,))
    holder.start()
    while not (tmp_path / "begun").exists():
        assert holder.is_alive()
        time.sleep(0.01)
    said: list[str] = []
    with ThreadPoolExecutor(1) as other:
        found = other.submit(run_shared, squares(tmp_path, 3, {2: 0}), tmp_path / "out", said.append)
        while not any("waiting" in line for line in said):
            time.sleep(0.01)
        assert names_made(tmp_path) == ["1"]
        os.kill(holder.pid or 0, signal.SIGKILL)
        assert found.result(timeout=10) == {"0": 0, "1": 1, "2": 4}
    holder.join()
    assert sum("waiting" in line for line in said) == 1
    assert not list((tmp_path / "out").rglob("*"))


def test_a_failure_ends_its_process_and_leaves_the_piece_to_the_others(tmp_path: Path) -> None:
    failures, both = [UserError("no text"), OSError("disk full")], threading.Barrier(2)

    def fail(_: Mapping[str, Any]) -> None:
        raise failures.pop()

    def process(_: int) -> str:
        both.wait()
        with pytest.raises((UserError, OSError)) as raised:
            run_shared([Piece("bad", fail), *squares(tmp_path, 2)], tmp_path / "out", lambda _: None)
        return str(raised.value)

    with ThreadPoolExecutor(2) as several:
        assert sorted(several.map(process, range(2))) == ["disk full", "no text"]


def test_two_processes_train_every_model_once_and_have_the_figures_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain = pretraining.pretrain

    def counted(settings: Any) -> Path:
        with (tmp_path / "made").open("a") as file:
            file.write(f"{Path(settings.out).relative_to(tmp_path)}\n")
        return pretrain(settings)

    monkeypatch.setattr(pretraining, "pretrain", counted)
    monkeypatch.setattr(output, "draw_curves", lambda *_: [])
    # Two models, each after a search of two rates.
    settings = tiny_experiment(
        tmp_path, training={"warmup": 2}, search={"learning_rate": (1e-5, 0.01)}, search_share=0.5
    )
    both = [PROCESSES.Process(target=run, args=(settings, tmp_path / "both")) for _ in range(2)]
    for process in both:
        process.start()
    run(settings, tmp_path / "one")
    for process in both:
        process.join()
        assert process.exitcode == 0
    alone = sorted(name.removeprefix("one/") for name in names_made(tmp_path) if name.startswith("one/"))
    assert len(alone) == 2 * 2 + 2
    if PROCESSES.get_start_method() == "fork":
        assert sorted(name.removeprefix("both/") for name in names_made(tmp_path) if name[0] == "b") == alone
    for name in FIGURES:
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    assert not list((tmp_path / "both").rglob(".*"))
