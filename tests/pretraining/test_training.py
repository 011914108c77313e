"""Pre-training from the command line: validation loss, schedules, configurations, and mistakes found before it."""

import csv
import json
import math
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_icl.cli import main
from lightning_icl.errors import UserError
from lightning_icl.pretraining._module import CausalPretraining
from lightning_icl.pretraining.models import check_model
from lightning_icl.pretraining.settings import PretrainSettings

SMALL = "--layers 1 --width 16 --heads 2 --block 32 --short-block 32 --short-steps 0 --batch 4 --vocabulary 300".split()
SMALL += "--steps 6 --warmup 2 --validate-every 6 --checkpoint-every 6 --accelerator cpu".split()


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    for name, least in (("train", 0), ("held", 5000)):
        text = " ".join(f"the number {n} follows {n - 1}." for n in range(least, least + 200))
        (tmp_path / f"{name}.txt").write_text(text)
    return ["--text", str(tmp_path / "train.txt"), "--validation-text", str(tmp_path / "held.txt")]


def test_validation_loss_is_the_mean_over_the_held_out_blocks(texts: list[str], tmp_path: Path) -> None:
    main(["pretrain", "--out", str(tmp_path / "m"), *texts, *SMALL])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    ids = [0, *tokenizer((tmp_path / "held.txt").read_text())["input_ids"], 1]
    losses = []
    with torch.no_grad():
        for start in range(0, len(ids) - 31, 32):
            block = torch.tensor(ids[start : start + 32])
            logs = model(block[None]).logits[0].double().log_softmax(-1)
            losses += [-float(logs[place, block[place + 1]]) for place in range(31)]
    rows = list(csv.DictReader((tmp_path / "m" / "training_log.csv").read_text().splitlines()))
    expected = sum(losses) / len(losses)
    assert float(rows[-1]["validation_loss"]) == pytest.approx(expected, abs=1e-5)
    assert float(rows[-1]["validation_perplexity"]) == pytest.approx(math.exp(expected), rel=1e-5)


def test_any_configuration_is_trained_and_measured(texts: list[str], tmp_path: Path) -> None:
    config = {"model_type": "gpt_neox", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
              "intermediate_size": 32, "max_position_embeddings": 512, "vocab_size": 7}  # fmt: skip
    (tmp_path / "shape").mkdir()
    (tmp_path / "shape" / "config.json").write_text(json.dumps(config))
    main(["pretrain", "--out", str(tmp_path / "m"), "--model", f"random:{tmp_path / 'shape'}", *texts, *SMALL])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert model.config.model_type == "gpt_neox"
    assert model.config.vocab_size == 300
    rows = ["--model", str(tmp_path / "m"), "--task", "tiny-sst2", "--shots", "2", "--limit", "4"]
    main(["compare", *rows, "--out", str(tmp_path / "run")])
    assert (tmp_path / "run" / "tiny-sst2" / "results.json").is_file()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"decay": "polynomial", "end_share": 0.0}, [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]),
        ({"decay": "polynomial", "decay_power": 2.0, "end_share": 0.2}, [0.5, 1.0, 0.65, 0.4, 0.25, 0.2]),
        ({"decay": "cosine"}, [0.5, 1.0, 0.1 + 0.45 * (1 + math.cos(math.pi / 4)), 0.55, None, 0.1]),
    ],
)
def test_the_rate_warms_up_and_decays(changes: dict, expected: list[float | None]) -> None:
    settings = PretrainSettings(out="unused", steps=10, warmup=2, **changes)
    module = CausalPretraining(torch.nn.Linear(1, 1), settings, end=0)
    for step, rate in zip((0, 2, 4, 6, 8, 10), expected, strict=True):
        if rate is not None:
            assert module._rate(step) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--block", "4096", "--context", "4096", "--short-block", "4096"], "text has .* tokens, fewer than one block"),
        (["--text", "none.txt"], "no file or folder 'none.txt'"),
        (["--model", "random:none/of/these"], "model 'none/of/these' does not exist"),
        (["--tokenizer", "none/of/these"], "'none/of/these' does not exist"),
        (["--batch", "5", "--accumulate", "2"], "must be a multiple"),
        (["--text-share", "1.5"], "text_share = 1.5"),
        (["--logger", "tensorboard"], "pip install tensorboard"),
    ],
)
def test_mistakes_are_found_before_training(
    flags: list[str], message: str, texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "tensorboard" in flags and find_spec("tensorboard"):
        pytest.skip("tensorboard is installed")
    with pytest.raises(SystemExit):
        main(["pretrain", "--out", str(tmp_path / "m"), *texts, *SMALL, *flags])
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "m").exists()


def test_too_few_positions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 64}))
    with pytest.raises(UserError, match="has 64 positions only"):
        check_model(PretrainSettings(out="unused", model=str(tmp_path), block=128, short_block=128))
