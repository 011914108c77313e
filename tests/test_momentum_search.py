"""The momentum experiment's search: what it chooses, that every arm reads as much, and that it goes on."""

import csv
import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from tiny_task import word_tokenizer

from experiments.momentum.run import main
from experiments.momentum.search import SEARCH, Values, check_texts, choose, keep_search, search
from experiments.momentum.settings import ExperimentSettings, read_settings
from lightning_icl.errors import OutputError, UserError

FOLDER = Path(__file__).parents[1] / "experiments" / "momentum"
GRID = {"learning_rate": (0.1, 0.2, 0.4), "batch": (2, 4), "warmup": (1, 3, 5)}


def bowl(values: Values) -> float:
    """A loss to which every setting adds a part of its own."""
    return (values["learning_rate"] - 0.3) ** 2 + abs(values["batch"] - 4) + abs(values["warmup"] - 3)


def test_one_setting_after_the_other_finds_the_best_of_all_where_settings_do_not_meet() -> None:
    found = choose(GRID, {"learning_rate": 0.1, "batch": 2, "warmup": 1}, bowl)
    combinations = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    assert bowl(found.chosen) == min(map(bowl, combinations))
    assert len(found.tried) == 3 + 1 + 2  # what was tried before is not tried again
    assert all(loss == bowl(values) for values, loss in found.tried)


def test_a_rate_that_diverges_is_not_chosen() -> None:
    found = choose({"learning_rate": (1.0, 0.1)}, {"learning_rate": 1.0}, lambda values: (
        math.nan if values["learning_rate"] == 1.0 else 9.0
    ))  # fmt: skip
    assert found.chosen == {"learning_rate": 0.1}


@pytest.mark.parametrize("size", ["smoke", "day", "long"])
def test_every_value_is_tried_on_as_many_tokens_with_the_same_shape_of_schedule(size: str, tmp_path: Path) -> None:
    settings = read_settings(FOLDER / f"{size}.yaml", {"text": "a", "validation_text": "b", "search_text": "c"})
    whole = settings.training(settings.variants[0], 1, tmp_path)
    for variant in settings.variants:
        for batch in settings.search.get("batch", (whole.batch, 2 * whole.batch)):
            values = {**settings.shared_values(), "batch": batch}
            chosen = settings.training(variant, 1, tmp_path, values)
            short = settings.search_training(variant, values, tmp_path)
            assert chosen.steps * chosen.batch == whole.steps * whole.batch
            assert chosen.short_steps * chosen.batch == whole.short_steps * whole.batch
            assert chosen.warmup * chosen.batch == whole.warmup * whole.batch
            for name in ("steps", "short_steps", "warmup"):
                assert getattr(short, name) == round(settings.search_share * getattr(chosen, name))
            assert short.validation_text == "c"
            assert chosen.validation_text == "b"
            assert short.seed not in (*settings.seeds, *settings.sweep_seeds)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentSettings, Path]:
    """A search of two rates for plain and momentum attention, on text of numbers."""
    folder = tmp_path_factory.mktemp("search")
    for place, name in enumerate(("text", "validation_text", "search_text")):
        words = (f"w{5 + (place + number * 7) % 80}" for number in range(400))
        (folder / f"{name}.txt").write_text(" ".join(words))
    word_tokenizer().save_pretrained(folder / "tokenizer")
    settings = ExperimentSettings(
        pretrain={
            "layers": 1, "width": 16, "heads": 2, "context": 32, "block": 32, "short_block": 32, "short_steps": 0,
            "batch": 2, "steps": 8, "warmup": 2, "accelerator": "cpu", "tokenizer": str(folder / "tokenizer"),
        },
        **{name: str(folder / f"{name}.txt") for name in ("text", "validation_text", "search_text")},
        search={"learning_rate": (1e-5, 0.01)},
        search_share=0.5,
        seeds=(1,),
    )  # fmt: skip
    return settings, search_all(settings, folder / "out")


def search_all(settings: ExperimentSettings, out: Path) -> Path:
    """The search of every kind of attention, and what is kept of it."""
    keep_search(settings, {variant.name: search(settings, variant, out) for variant in settings.variants}, out)
    return out


def test_the_chosen_rate_has_the_lowest_loss_on_the_text_of_the_search(
    searched: tuple[ExperimentSettings, Path],
) -> None:
    settings, out = searched
    kept = json.loads((out / SEARCH).read_text())
    assert list(kept["arms"]) == ["vanilla", "eta-0.9"]
    assert kept["judged_on"] == settings.search_text
    for name, arm in kept["arms"].items():
        losses = {}
        for path in (out / "search" / name).glob("*/training_log.csv"):
            rate = json.loads((path.parent / "training.json").read_text())["learning_rate"]
            losses[rate] = float(list(csv.DictReader(path.read_text().splitlines()))[-1]["validation_loss"])
        assert len(losses) == 2
        assert arm["chosen"]["learning_rate"] == min(losses, key=losses.__getitem__) == 0.01
        assert {values["learning_rate"]: values["loss"] for values in arm["tried"]} == losses


def test_a_search_goes_on_with_what_is_finished_and_refuses_other_settings(
    searched: tuple[ExperimentSettings, Path],
) -> None:
    settings, out = searched
    made = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    record = (out / SEARCH).read_text()
    search_all(settings, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")} == made
    assert (out / SEARCH).read_text() == record
    with pytest.raises(OutputError, match="steps = 4; now it is 2"):
        search_all(replace_share(settings, 0.25), out)


def replace_share(settings: ExperimentSettings, share: float) -> ExperimentSettings:
    return replace(settings, search_share=share)


def test_a_text_that_serves_twice_is_named(searched: tuple[ExperimentSettings, Path]) -> None:
    settings, _ = searched
    check_texts(settings)
    with pytest.raises(UserError, match=r"search_text and validation_text both hold .*validation_text\.txt"):
        check_texts(replace(settings, search_text=settings.validation_text))
    with pytest.raises(UserError, match="text and validation_text both hold"):
        check_texts(replace(settings, text=f"{settings.text},{settings.validation_text}"))


def test_mistakes_about_the_search_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    basic = {"text": "a", "validation_text": "b"}
    with pytest.raises(UserError, match="Give --search-text"):
        read_settings(FOLDER / "day.yaml", basic)
    with pytest.raises(UserError, match="Did you mean 'learning_rate'"):
        ExperimentSettings(pretrain={}, **basic, search={"learning_rat": (1.0,)}, search_text="c")
    with pytest.raises(UserError, match="search_share"):
        ExperimentSettings(pretrain={}, **basic, search={"batch": (8,)}, search_text="c", search_share=0.0)
    for name in basic.values():
        (tmp_path / name).write_text("word")
    with pytest.raises(SystemExit) as ended:
        main(["--size", "cpu", "--search", "--text", str(tmp_path / "a"), "--validation-text", str(tmp_path / "b")])
    assert ended.value.code == 2
    assert "--search: this size has none" in capsys.readouterr().err
