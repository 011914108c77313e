"""Training that begins with an existing model: its weights, its tokenizer, momentum added; mistakes named before it."""

import csv
import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model
from tiny_task import word_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_icl.cli import main
from lightning_icl.models.finding import builtin_folder, find_model
from lightning_icl.models.loading import load_model
from lightning_icl.models.momentum.conversion import to_momentum
from lightning_icl.pretraining._documents import document
from lightning_icl.pretraining.tokenizer import named_tokenizer

RUN = "--block 128 --short-block 128 --short-steps 0 --batch 2 --warmup 2 --accelerator cpu".split()


def plain_loss(model: torch.nn.Module, tokenizer: object, numbers: range) -> float:
    """Weighted loss of whole documents, one token at a time."""
    total = weight = 0.0
    for number in numbers:
        ids, weights = [tokenizer.bos_token_id], [1.0]
        for prompt, answer in document(1, number, 0.4, 0.0):
            for part, heavy in ((prompt, 1.0), (answer, 5.0)):
                tokens = tokenizer(part, add_special_tokens=False)["input_ids"]
                ids, weights = ids + tokens, weights + [heavy] * len(tokens)
            ids, weights = [*ids, tokenizer.eos_token_id], [*weights, 1.0]
            if len(ids) >= 128:
                break
        with torch.no_grad():
            logs = model(torch.tensor([ids[:128]])).logits[0].double().log_softmax(-1)
        for place in range(1, 128):
            total -= weights[place] * float(logs[place - 1, ids[place]])
            weight += weights[place]
    return total / weight


@pytest.mark.parametrize("momentum", [False, True])
def test_the_first_loss_is_that_of_the_initial_model(momentum: bool, tmp_path: Path) -> None:
    flags = ["--momentum", "0.3", "--learn-momentum"] if momentum else []
    main(["pretrain", "--init", "builtin", "--out", str(tmp_path / "m"), "--steps", "1", *RUN, *flags])
    model = AutoModelForCausalLM.from_pretrained(builtin_folder("builtin"))
    if momentum:
        to_momentum(model, eta=0.3)
    expected = plain_loss(model, AutoTokenizer.from_pretrained(builtin_folder("builtin")), range(2))
    (row,) = csv.DictReader((tmp_path / "m" / "training_log.csv").read_text().splitlines())
    assert float(row["loss"]) == pytest.approx(expected, abs=1e-5)


def test_the_result_is_the_trained_model_with_momentum_and_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "m"
    main(["pretrain", "--init", "builtin", "--momentum", "0.9", "--learn-momentum", "--steps", "20", "--out", str(out),
          *RUN, "--learning-rate", "0.01"])  # fmt: skip
    model = load_model(find_model(str(out)))
    assert model.config.momentum_attention == {
        "eta": 0.9, "learn": True, "form": "sum", "gate_init": None, "base": "sdpa",
    }  # fmt: skip
    learnt = torch.stack([value for name, value in model.named_parameters() if name.endswith("momentum_logit")])
    assert learnt.shape == (4, 6)
    assert (learnt.sigmoid() - 0.9).abs().min() > 1e-5  # every head has moved
    own = AutoTokenizer.from_pretrained(builtin_folder("builtin")).get_vocab()
    assert AutoTokenizer.from_pretrained(out).get_vocab() == own
    run = ["--task", "tiny-sst2", "--shots", "2", "--limit", "4", "--out", str(tmp_path / "run")]
    main(["compare", "--model", str(out), *run])
    assert (tmp_path / "run" / "tiny-sst2" / "results.json").is_file()


def test_a_tokenizer_for_weights_alone_and_another_of_the_same_size_are_taken(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(tmp_path / "words")
    model = tiny_model("llama")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / "bare")
    given = ["pretrain", "--init", str(tmp_path / "bare"), "--out", str(tmp_path / "m"), "--steps", "1", *RUN]
    main([*given, "--tokenizer", str(tmp_path / "words")])
    assert len(AutoTokenizer.from_pretrained(tmp_path / "m")) == len(tokenizer)


def test_the_tokenizer_of_a_built_in_model_is_taken_by_its_name() -> None:
    own = AutoTokenizer.from_pretrained(builtin_folder("builtin")).get_vocab()
    assert named_tokenizer("builtin").get_vocab() == own


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--init", "none/of/these"], "'none/of/these' does not exist"),
        (["--init", "random:builtin"], "has no weights to begin with. Give it as model instead"),
        (["--init", "builtin", "--tokenizer", "WORDS"], r"has \d+ tokens, but the model 'builtin' was made for 2791"),
        (["--init", "builtin", "--layers", "2"], "layers = 2 is for fresh weights"),
        (["--init", "builtin", "--context", "4096"], "context = 4096 is for fresh weights"),
        (["--init", "builtin", "--model", "random:builtin"], "model = 'random:builtin' is for fresh weights"),
        (["--init", "builtin", "--block", "4096", "--short-block", "4096"], "'builtin' has 2048 positions only"),
        (["--init", "builtin", "--learn-momentum"], "learn_momentum needs a first value"),
        (["--init", "BLOOM", "--momentum", "0.9"], "momentum cannot be added"),
        (["--init", "PICKLE"], "--allow-pickle"),
    ],
)
def test_mistakes_are_found_before_training(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word_tokenizer().save_pretrained(tmp_path / "WORDS")
    tiny_model("bloom").save_pretrained(tmp_path / "BLOOM")
    (tmp_path / "PICKLE").mkdir()
    shutil.copy(builtin_folder("builtin") / "config.json", tmp_path / "PICKLE")
    torch.save({}, tmp_path / "PICKLE" / "pytorch_model.bin")
    flags = [str(tmp_path / flag) if (tmp_path / flag).is_dir() else flag for flag in flags]
    with pytest.raises(SystemExit):
        main(["pretrain", "--out", str(tmp_path / "m"), "--steps", "1", *RUN, *flags])
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "m.training").exists()
