"""Model folders as they come from downloads, trainers and converters: damaged, unsafe, or of another shape."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from outside_case import Case, check_case
from safetensors.torch import load_file
from tiny_folders import SETTINGS, changed_config, changed_weights, model_folder
from torch import Tensor

from lightning_icl.cli import main

COMPARE = f"compare --model model {SETTINGS} --out out"
Prepare = Callable[[Path], None]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 134515008\n"


def configured(**changes: object) -> Prepare:
    return lambda here: changed_config(model_folder(here), **changes)


def weighing(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], variant: str = "llama") -> Prepare:
    return lambda here: changed_weights(model_folder(here, variant), change)


def prefixed(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def holding(name: str, content: bytes) -> Prepare:
    return lambda here: (model_folder(here) / name).write_bytes(content) and None


def lacking(*names: str) -> Prepare:
    def prepare(here: Path) -> None:
        folder = model_folder(here)
        for name in names:
            (folder / name).unlink()

    return prepare


def indexed(index: object) -> Prepare:
    """Weights in `a.safetensors`, named by an index."""

    def prepare(here: Path) -> None:
        folder = model_folder(here)
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        text = index if isinstance(index, str) else json.dumps(index)
        (folder / "model.safetensors.index.json").write_text(text)

    return prepare


def naming(file: object) -> Prepare:
    return indexed({"weight_map": {"lm_head.weight": file}, "metadata": {}})


def pickled(content: bytes | None = None, prefix: str = "") -> Prepare:
    """A pickle file in place of the weights: some bytes, or the weights themselves."""

    def prepare(here: Path) -> None:
        folder = model_folder(here)
        tensors = prefixed(prefix)(load_file(folder / "model.safetensors"))
        (folder / "model.safetensors").unlink()
        if content is None:
            torch.save(tensors, folder / "pytorch_model.bin")
        else:
            (folder / "pytorch_model.bin").write_bytes(content)

    return prepare


def numbered(shift: int, *words: str) -> Prepare:
    """Some words of the tokenizer have higher numbers."""

    def prepare(here: Path) -> None:
        path = model_folder(here) / "tokenizer.json"
        content = json.loads(path.read_text())
        vocabulary = content["model"]["vocab"]
        for word in words:
            vocabulary[word] += shift
        for token in content["added_tokens"]:
            token["id"] = vocabulary[token["content"]]
        path.write_text(json.dumps(content))

    return prepare


def cut(here: Path) -> None:
    path = model_folder(here) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def without(part: str) -> Prepare:
    return weighing(lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name})


def of_type(dtype: torch.dtype) -> Prepare:
    return weighing(
        lambda tensors: {name: tensor.to(dtype) if "k_proj" in name else tensor for name, tensor in tensors.items()}
    )


class Ran:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a pickle file ran')",)


def case(situation: str, prepare: Prepare, *says: str, flags: str = "", loads_weights: bool = False) -> Case:
    return Case(
        situation=situation,
        arguments=f"{COMPARE} {flags}",
        prepare=prepare,
        says=says,
        loads_weights=loads_weights,
    )


MISFITS = [
    case("saved from a compiled model", weighing(prefixed("_orig_mod.")), "30 missing", "torch.compile", "_orig_mod"),
    case("saved from a wrapped model", weighing(prefixed("module.")), "'module.'", "DistributedDataParallel"),
    case("saved from a LightningModule", weighing(prefixed("model."), "gpt2"), "'model.'", "LightningModule"),
    case("saved from a PEFT model", weighing(prefixed("base_model.model.")), "merge_and_unload"),
    case("an unknown prefix", weighing(prefixed("x.")), "30 missing", "30 unexpected", "x.lm_head.weight"),
    case("a projection is missing", without("layers.1.self_attn.k_proj"), "model.layers.1.self_attn.k_proj.weight"),
    case("the head is missing and not tied", without("lm_head"), "1 missing (lm_head.weight)"),
    case("a layer too few", configured(num_hidden_layers=4), "9 missing", "model.layers.3"),
    case("a layer too many", configured(num_hidden_layers=2), "9 unexpected", "model.layers.2"),
    case("no layer at all", configured(num_hidden_layers=0), "27 unexpected"),
    case("a head of another task", weighing(lambda t: {**t, "score.weight": torch.zeros(2, 32)}), "score.weight"),
    case("another vocabulary", configured(vocab_size=98), "(97, 32) in the file, (98, 32) configured"),
    case("other key heads", configured(num_key_value_heads=4), "k_proj.weight ((16, 32) in the file, (32, 32)"),
    case("biases configured", configured(attention_bias=True), "12 missing", "k_proj.bias"),
    case("8-bit weights", of_type(torch.int8), "quantised", "k_proj.weight", "I8"),
    case("float8 weights", of_type(torch.float8_e4m3fn), "quantised", "F8_E4M3"),
    case(
        "not a number among the weights",
        weighing(lambda t: {**t, "model.norm.weight": t["model.norm.weight"] / 0}),
        "NaN or infinite",
        "model.norm.weight",
        loads_weights=True,
    ),
    case(
        "pickled weights that do not fit",
        pickled(prefix="module."),
        "30 unexpected (module.lm_head.weight",
        flags="--allow-pickle",
        loads_weights=True,
    ),
]

FILES = [
    case("no weights", lacking("model.safetensors"), "model.safetensors", "is missing"),
    case("a git-lfs pointer", holding("model.safetensors", POINTER), "git-lfs pointer", "git lfs pull"),
    case("an empty file", holding("model.safetensors", b""), "cut short or no safetensors file"),
    case("a file cut short", cut, "model/model.safetensors", "cut short"),
    case("a pickle under another name", holding("model.safetensors", pickle.dumps(Ran())), "no safetensors file"),
    case("a zip under another name", holding("model.safetensors", b"PK\x03\x04" + bytes(200)), "no safetensors file"),
    case("a file without tensors", weighing(lambda tensors: {}), "holds no tensor"),
    case("an index that names a pickle", naming("weights.bin"), "'weights.bin'", "Only *.safetensors"),
    case("an index that leaves the folder", naming("../a.safetensors"), "inside the folder"),
    case("an index with an absolute path", naming("/etc/a.safetensors"), "inside the folder"),
    case("an index that names a number", naming(3), "'3'", "Only *.safetensors"),
    case("an index that names what is not there", naming("b.safetensors"), "'model/b.safetensors' is missing"),
    case("an index without names", indexed({"metadata": {}}), "weight_map"),
    case("an index with a list of names", indexed({"weight_map": ["a.safetensors"], "metadata": {}}), "weight_map"),
    case("an index without metadata", indexed({"weight_map": {"a": "a.safetensors"}}), "metadata"),
    case("an index that is a list", indexed([]), "must hold a JSON object"),
    case("an index cut short", indexed('{"weight_map": {"lm'), "cannot be read as JSON"),
    case("an index nested without end", indexed("[" * 100_000), "cannot be read as JSON"),
    case("an index allowed to be pickle", naming("weights.bin"), "Only *.safetensors", flags="--allow-pickle"),
    case("weights that the configuration names", configured(transformers_weights="x/../../m.bin"), "m.bin"),
    case("a distributed checkpoint", holding("shard-00000-model-00001-of-00002.safetensors", b""), "distributed"),
    case("pickle files alone", pickled(), "--allow-pickle", "can run code"),
    case(
        "a pickle file that is damaged",
        pickled(b"PK\x03\x04"),
        "cannot be read",
        flags="--allow-pickle",
        loads_weights=True,
    ),
    case(
        "a pickle file with code",
        pickled(pickle.dumps(Ran())),
        "cannot be read",
        flags="--allow-pickle",
        loads_weights=True,
    ),
    case("an adapter's folder", holding("adapter_config.json", b"{}"), "PEFT adapter", "--adapter"),
]

CONFIGURATIONS = [
    case("a configuration cut short", holding("config.json", b'{"model_t'), "config.json", "JSON"),
    case("a configuration that is a list", holding("config.json", b"[]"), "must hold a JSON object"),
    case("a configuration that is no text", holding("config.json", b"\xff\xfe\x00"), "cannot be read as JSON"),
    case("no model type", configured(model_type=None), "`model_type`"),
    case("an unheard-of model type", configured(model_type="nope"), "`nope`"),
    case("an activation that does not exist", configured(hidden_act="nope"), "describes no model", "nope"),
    case("positions that do not exist", configured(rope_parameters={"rope_type": "nope"}), "describes no model"),
    case("a number as text", configured(vocab_size="many"), "vocab_size", "many"),
    case("a negative vocabulary", configured(vocab_size=-1), "describes no model"),
    case("no heads", configured(num_attention_heads=0), "cannot be read"),
    case("padding beyond the embedding", configured(pad_token_id=500), "describes no model", "adding_idx"),
    case("a number type that does not exist", configured(dtype="nope"), "nope"),
    case("quantised", configured(quantization_config={"load_in_8bit": True}), "quantised", "quantization_config"),
    case("generation settings of a list", holding("generation_config.json", b"[]"), "generation_config.json"),
    case("a tokenizer's settings cut short", holding("tokenizer_config.json", b"{"), "tokenizer_config.json"),
    case("a tokenizer cut short", holding("tokenizer.json", b'{"ver'), "tokenizer.json"),
    case("a tokenizer of a list", holding("tokenizer.json", b"[]"), "tokenizer.json", "JSON object"),
    case("no tokenizer", lacking("tokenizer.json", "tokenizer_config.json"), "no tokenizer"),
    case("BOS beyond the embedding", numbered(500, "<s>"), "token '<s>' has number 501", "97 tokens"),
    case("an answer beyond the embedding", numbered(500, "w5"), "token 'w5' has number 505"),
]

HARMLESS = [
    ("results as tuples", configured(return_dict=False)),
    ("no generation settings", configured(generation_config=None)),
    ("attention weights asked for", configured(output_attentions=True, output_hidden_states=True)),
    ("no cache", configured(use_cache=False)),
    ("weights without their outer name", weighing(lambda t: {n.removeprefix("model."): v for n, v in t.items()})),
    ("weights named by an index", naming("a.safetensors")),
]


@pytest.mark.parametrize("case", [*MISFITS, *FILES, *CONFIGURATIONS], ids=lambda case: case.situation)
def test_weights(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)


def figures(here: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    prepare(here)
    monkeypatch.chdir(here)
    main(COMPARE.split())
    results = json.loads((here / "out/tiny/results.json").read_text())
    shutil.rmtree(here)
    here.mkdir()
    return [*results["accuracy"].values(), *results["sim_aou"]["raw_per_layer"], results["kendall"]["value"]]


@pytest.mark.parametrize(("situation", "prepare"), HARMLESS, ids=[situation for situation, _ in HARMLESS])
def test_what_does_not_matter_changes_no_figure(
    situation: str, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = figures(tmp_path, configured(), monkeypatch)
    # Weights that start elsewhere in a file are summed in other blocks.
    assert figures(tmp_path, prepare, monkeypatch) == pytest.approx(plain, abs=1e-5)
