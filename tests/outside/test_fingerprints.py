"""Fine-tunings and sweeps gone on with after something they were made from has changed, or they themselves have."""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from outside_case import Case, check_case
from safetensors.torch import load_file, save_file
from tiny_folders import SETTINGS, changed_config, changed_weights, model_folder
from torch import Tensor

from lightning_icl.cli import main
from lightning_icl.records import KVOverlay

FIT = f"fit --model model {SETTINGS} --out fitted"
VALIDATE = f"validate --model model {SETTINGS} --overlay fitted --out out"
SWEEP = "sweep --model model --task tiny.yaml --shots 3 --seeds 1 --lrs 0.1 --heldout 4 --out swept"
Change = Callable[[Path], object]


@cache
def _made(command: str) -> Path:
    here = Path(tempfile.mkdtemp(prefix="made-"))
    model_folder(here)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        main(command.split())
    return here


def after(command: str, change: Change) -> Callable[[Path], None]:
    def prepare(here: Path) -> None:
        shutil.copytree(_made(command), here, dirs_exist_ok=True)
        change(here)

    return prepare


def text(path: str, old: str, new: str) -> Change:
    def change(here: Path) -> None:
        content = (here / path).read_text()
        assert old in content
        (here / path).write_text(content.replace(old, new))

    return change


def nudged(here: Path) -> None:
    changed_weights(
        here / "model", lambda tensors: {**tensors, "model.norm.weight": tensors["model.norm.weight"] + 1e-3}
    )


def other_bos(here: Path) -> None:
    path = here / "model/tokenizer_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"bos_token": "w9"}))


def record(*keys: str, value: object) -> Change:
    """Another value in `finetune.json`."""

    def change(here: Path) -> None:
        path = here / "fitted/tiny/finetune.json"
        content = json.loads(path.read_text())
        room = content
        for key in keys[:-1]:
            room = room[key]
        room[keys[-1]] = value
        path.write_text(json.dumps(content))

    return change


def tensors(name: str, edit: Callable[[Tensor], Tensor], *, hashed: str | None = None) -> Change:
    """Other numbers in a file of tensors; with `hashed`, their hash is put into the record as well."""

    def change(here: Path) -> None:
        path = here / "fitted/tiny" / name
        edited = {key: edit(tensor).contiguous() for key, tensor in load_file(path).items()}
        save_file(edited, path)
        if hashed is not None:
            record("fingerprints", hashed, value=KVOverlay(tensors=edited).hash)(here)

    return change


def flipped(here: Path) -> None:
    path = here / "fitted/tiny/kv_overlay.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def overlay(situation: str, change: Change, *says: str) -> Case:
    return Case(situation=situation, arguments=VALIDATE, prepare=after(FIT, change), says=says)


def sweep(situation: str, change: Change, *says: str) -> Case:
    return Case(situation=situation, arguments=SWEEP, prepare=after(SWEEP, change), says=says)


def file(name: str, content: bytes | None) -> Change:
    def change(here: Path) -> None:
        path = here / "fitted/tiny" / name
        path.unlink() if content is None else path.write_bytes(content)

    return change


OVERLAY, QUERIES = "kv_overlay.safetensors", "training_queries.safetensors"
CASES = [
    overlay("the model's weights changed", nudged, "other weights", "'model'", "lightning-icl fit"),
    overlay(
        "the model's configuration changed",
        lambda here: changed_config(here / "model", rms_norm_eps=0.1),
        "other weights",
    ),
    overlay(
        "the model was replaced",
        lambda here: (shutil.rmtree(here / "model"), model_folder(here, "mistral")),
        "other weights",
    ),
    overlay("a bit of the overlay flipped", flipped, OVERLAY, "has changed since it was saved"),
    overlay("the overlay set to zero", tensors(OVERLAY, torch.zeros_like), "has changed since it was saved"),
    overlay(
        "not a number in the overlay",
        tensors(OVERLAY, lambda t: t / 0, hashed="overlay"),
        OVERLAY,
        "NaN or infinite numbers",
    ),
    overlay(
        "whole numbers in the overlay", tensors(OVERLAY, lambda t: t.int(), hashed="overlay"), "NaN or infinite numbers"
    ),
    overlay("no overlay", file(OVERLAY, None), OVERLAY, "cannot be read"),
    overlay("an overlay cut short", file(OVERLAY, b"123"), OVERLAY, "cannot be read"),
    overlay(
        "not a number in the query vectors",
        tensors(QUERIES, lambda t: t * float("nan"), hashed="training_queries"),
        "NaN or infinite numbers",
    ),
    overlay(
        "whole numbers as query vectors",
        tensors(QUERIES, lambda t: t.long(), hashed="training_queries"),
        "NaN or infinite numbers",
    ),
    overlay(
        "query vectors of another shape",
        tensors(QUERIES, lambda t: t[:, 1:], hashed="training_queries"),
        "shape",
        "is needed",
    ),
    overlay("query vectors changed", tensors(QUERIES, lambda t: t * 2), "has changed since it was saved"),
    overlay("no query vectors", file(QUERIES, None), QUERIES, "cannot be read"),
    overlay("no record", file("finetune.json", None), "no fine-tuning", "lightning-icl fit"),
    overlay("a record cut short", file("finetune.json", b'{"model": '), "finetune.json", "cannot be read"),
    overlay("a record of a list", file("finetune.json", b"[]"), "is damaged"),
    overlay("a record nested without end", file("finetune.json", b"[" * 100_000), "cannot be read"),
    overlay("a record without losses", record("finetune", "loss", value=None), "finetune.loss is missing or wrong"),
    overlay("a rate as text", record("finetune", "lr", value="0.1"), "finetune.lr is missing or wrong"),
    overlay("a record without fingerprints", record("fingerprints", value={}), "fingerprints.weights is missing"),
    overlay("a demonstration changed", text("rows/train.jsonl", '"text": "', '"text": "w11 '), "other demonstrations"),
    overlay("another template", text("tiny.yaml", "w3 {text}", "w8 {text}"), "other demonstrations"),
    overlay("other answers", text("tiny.yaml", "w5, w6", "w6, w5"), "other demonstrations"),
    sweep("a query changed", text("rows/validation.jsonl", '"text": "', '"text": "w11 '), "other rows", "--overwrite"),
    sweep("a training row changed", text("rows/train.jsonl", '"text": "', '"text": "w11 '), "other rows"),
    sweep("a label changed", text("rows/validation.jsonl", '"label": 2', '"label": 1'), "other rows"),
    sweep("another template", text("tiny.yaml", "w3 {text}", "w8 {text}"), "other template or answers"),
    sweep("other answers", text("tiny.yaml", "w7]", "w9]"), "other template or answers"),
    sweep("another BOS token", other_bos, "other tokens", "tokenizer"),
    sweep("the model's weights changed", nudged, "other weights", "'model: tiny'"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.arguments.split()[0]}: {case.situation}")
def test_what_has_changed_is_refused(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)


def test_the_same_model_elsewhere_takes_the_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after(FIT, lambda here: (here / "model").rename(here / "moved"))(tmp_path)
    monkeypatch.chdir(tmp_path)
    main(VALIDATE.replace("--model model", "--model moved").split())
    results = json.loads((tmp_path / "out/tiny/results.json").read_text())
    made = json.loads((tmp_path / "fitted/tiny/finetune.json").read_text())
    assert results["fingerprints"] == {name: made["fingerprints"][name] for name in results["fingerprints"]}
    assert results["fingerprints"]["overlay"] == results["finetune"]["overlay_hash"]


def test_a_changed_sweep_is_measured_again_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after(SWEEP, nudged)(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = next((tmp_path / "swept").rglob("run.json"))
    before = json.loads(path.read_text())
    main([*SWEEP.split(), "--overwrite"])
    assert json.loads(path.read_text())["fingerprint"] != before["fingerprint"]
    assert json.loads(path.read_text())["comparison"] != before["comparison"]
